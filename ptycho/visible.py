r"""Text from files and file names, made safe for a terminal, a log and a page.

A name in a file can hold escape codes that retitle a terminal or rewrite its lines, marks that reverse the direction of
what follows, and halves of characters that no encoding can write. Whatever is printed or logged passes through here.
"""

from __future__ import annotations

import unicodedata

__all__ = ["brief", "visible"]

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of control codes, direction and format marks, surrogates, private and unassigned codes, and
separators of lines and paragraphs."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: object) -> str:
    r"""One line of text in which every character that would not be seen as itself is written as an escape.

    Parameters
    ----------
    text
        Any text, or what has one. A byte of a file name that is not UTF-8 is written as ``\xff``, a control code as
        ``\x1b``, a line break as ``\n``, a direction mark as ``\u202e``. Letters of every script stay.

    Returns
    -------
    str
        Text without control codes and surrogates; given again to this function it stays as it is.
    """
    line = str(text)
    if line.isprintable():
        return line
    return "".join(_escaped(char) if unicodedata.category(char) in _HIDDEN else char for char in line)


def brief(value: object, longest: int = 80) -> str:
    """A value as a message quotes it: one visible line, cut after so many characters."""
    try:
        text = visible(value)
    except ValueError:  # Python writes no integers of more than 4300 digits
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte of a file name that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
