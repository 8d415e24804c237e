"""How the `ptycho` command ends: one line on standard error and an exit code, whatever happens.

====  ======================================================================================================
code  meaning
====  ======================================================================================================
0     done
1     an error of this program: its traceback is in a file that the line names; or standard output is full
2     refused, or not possible: the line says what to change
129   ended by SIGHUP (128 + its number): the terminal was closed; the line says what is kept
130   interrupted with Ctrl-C
141   the program that read standard output ended first (128 + SIGPIPE, what a shell reports of `yes | head`)
143   ended by SIGTERM, as by a batch system
====  ======================================================================================================
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence

from ptycho._version import __version__
from ptycho.cli.ending import with_notes
from ptycho.cli.printing import print_lines
from ptycho.config.processes import Terminated, is_first_process, raises_on_termination
from ptycho.errors import PtychoError

__all__ = ["guarded", "say"]

DONE, INTERNAL_ERROR, REFUSED, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

_LONGEST = 400
"""Characters of an error that is not the library's own; some frameworks put whole graphs into theirs."""


def guarded(work: Callable[[], None], words: Sequence[str]) -> int:
    """Do the work of a command and return its exit code; an error becomes one line on standard error.

    Parameters
    ----------
    work
        Writes its files before it prints to standard output, so that they are whole if nobody reads that.
    words
        The command line after `ptycho`, for the report of an internal error.

    Raises
    ------
    SystemExit
        If the work raises it: a process of a distributed training ends in this way.
    """
    _open_standard_streams()
    with raises_on_termination():
        return _guarded(work, words)


def _guarded(work: Callable[[], None], words: Sequence[str]) -> int:
    try:
        work()
        sys.stdout.flush()
    except PtychoError as error:
        return _ended(REFUSED, with_notes(str(error), error))
    except MemoryError:
        return _ended(REFUSED, "the memory does not suffice: use a smaller --batch_size, --crop or --bin.")
    except Terminated as end:
        return _ended(128 + end.number, with_notes(f"ended by {end}.", end))
    except KeyboardInterrupt as end:
        return _ended(INTERRUPTED, with_notes("interrupted.", end))
    except SystemExit:
        raise
    except BaseException as error:
        if (fault := _output_fault(error)) is not None:
            return _without_output(fault)
        return _ended(INTERNAL_ERROR, _internal(error, words))
    return DONE


def say(sentence: str) -> None:
    """Print a sentence of the command on standard error, in one line; nothing if that cannot be written to."""
    with contextlib.suppress(OSError, ValueError):
        print_lines(f"ptycho: {sentence}", file=sys.stderr)


def _ended(code: int, sentence: str) -> int:
    """Print what was printed before, then the sentence, and return the code."""
    fault = _output_fault()
    if code < 128 or is_first_process():
        say(sentence)
    if fault is not None:
        _discard_output()
    return code


def _without_output(fault: OSError) -> int:
    """End after standard output could not be written: quietly where its reader is gone."""
    _discard_output()
    if isinstance(fault, BrokenPipeError):
        return PIPE_CLOSED
    say(f"standard output cannot be written: {fault.strerror or fault}.")
    return INTERNAL_ERROR


def _output_fault(error: BaseException | None = None) -> OSError | None:
    """Why standard output cannot be written, None if it can; what could not be written stays buffered.

    Without a buffer (`python -u`) only the error that `print` raised says so: nothing else is written by this package.
    """
    try:
        sys.stdout.flush()
    except OSError as refusal:
        return refusal
    if isinstance(error, OSError) and error.__traceback__ is not None:
        innermost = traceback.extract_tb(error.__traceback__)[-1].filename
        if os.path.dirname(innermost) == os.path.dirname(__file__):
            return error
    return None


def _discard_output() -> None:
    """Send what is still buffered nowhere, or Python would report it again when the process ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        sys.stdout.flush()


def _open_standard_streams() -> None:
    """Open the standard streams that the caller closed, or a result's file would get their number and their text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with contextlib.suppress(OSError):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115


def _internal(error: BaseException, words: Sequence[str]) -> str:
    """The sentence for an error that the library did not foresee; its traceback goes to a new file."""
    what = f"internal error: {_described(error)}"
    try:
        return f"{what}; details in {_report(error, words)}, please report them"
    except OSError as refusal:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"{what} at {os.path.basename(where.filename)}, line {where.lineno}; the details could not be written to "
            f"{tempfile.gettempdir()} ({refusal.strerror or refusal}), please report this line"
        )


def _described(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # its own text fails
        text = ""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return f"{type(error).__name__} {text}".rstrip()


def _report(error: BaseException, words: Sequence[str]) -> str:
    """Write what a developer needs to a new file of the temporary folder, readable by this user alone."""
    number, path = tempfile.mkstemp(prefix="ptycho-error-", suffix=".txt")
    with open(number, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(f"ptycho {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
        stream.write(f"{shlex.join(['ptycho', *words])}\n\n")
        stream.writelines(traceback.format_exception(error))
    return path
