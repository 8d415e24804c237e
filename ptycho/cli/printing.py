"""What the command prints and logs: whole lines, in which no text from a file can control the terminal."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, TextIO

from ptycho.visible import visible

__all__ = ["LineFormatter", "json_lines", "print_lines"]


def print_lines(*lines: object, file: TextIO | None = None) -> None:
    r"""Print lines on standard output, or on another stream.

    Parameters
    ----------
    lines
        One line each: a line break inside one is printed as ``\n``. What the stream's encoding lacks is escaped too.
    file
        The stream.
    """
    stream = sys.stdout if file is None else file
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = "".join(f"{visible(line)}\n" for line in lines)
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def json_lines(value: Any) -> list[str]:
    """Return a value as lines of JSON in ASCII; JSON's own escapes leave out one control code, which is added here."""
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f").split("\n")


class LineFormatter(logging.Formatter):
    """One line for every message; the traceback, where there is one, on the lines after it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  a method of logging
        """The message with its level and its logger.

        Line breaks of other libraries' messages are kept, each further line indented, so that none of them can be taken
        for a message of its own.
        """
        own = record.name.partition(".")[0].startswith("ptycho")
        lines = [record.message] if own else record.message.rstrip().split("\n")
        record.message = "\n    ".join(visible(line) for line in lines)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802  a method of logging
        """The traceback, line by line."""
        return "\n".join(visible(line) for line in super().formatException(ei).split("\n"))  # type: ignore[arg-type]
