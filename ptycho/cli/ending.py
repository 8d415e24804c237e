"""How a command ends before its work is done: with a sentence that says what is kept and which command goes on."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator

from ptycho.cli.options import Call, CommonOptions, ResumeOptions
from ptycho.config.settings import TRUE
from ptycho.errors import OutputError

__all__ = ["keeping", "with_notes"]


@contextlib.contextmanager
def keeping(call: Call, kept: Callable[[], str]) -> Iterator[None]:
    """Where the work in the block ends early, note in the error what is kept and the command that goes on from it.

    Parameters
    ----------
    call : the command.
    kept : says what a further run goes on from, e.g. ``"the state is kept in FILE"``; empty while there is nothing.
    """
    try:
        yield
    except (KeyboardInterrupt, OutputError) as error:
        if left := kept():
            error.add_note(f"{left}; {'go on with' if _can_resume(call) else 'start anew with'}: {resuming(call)}")
        elif isinstance(error, KeyboardInterrupt):
            error.add_note("nothing is kept yet.")
        raise


def with_notes(sentence: str, error: BaseException) -> str:
    """A sentence about an error, and after it what was noted in the error on its way."""
    return "; ".join([sentence.removesuffix("."), *notes]) if (notes := getattr(error, "__notes__", [])) else sentence


def resuming(call: Call) -> str:
    """The command line that goes on after a call was ended, or starts it anew where it cannot, to be pasted."""
    words = shlex.split(call.line)
    if _can_resume(call) and call[CommonOptions].force:  # --force starts anew; it may also stand in a --config file
        kept = [word for word, value in zip(words, [*words[1:], ""], strict=True) if not _forces(word, value)]
        words = kept if len(kept) < len(words) else [*words, "--force", "false"]
    place = words.index("--") if "--" in words else len(words)
    flag = "--resume" if _can_resume(call) else "--force"
    words = [*words[:place], *([] if flag in words[:place] else [flag]), *words[place:]]
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    """A word as a shell reads it, in characters that are printed as they are; others as bash and zsh escape them."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(escaped)}'"


def _forces(word: str, value: str) -> bool:
    """Whether a word is a lone ``--force``."""
    return word == "--force" and value.lower() not in TRUE


def _can_resume(call: Call) -> bool:
    return any(isinstance(config, ResumeOptions) for config in call.configs)
