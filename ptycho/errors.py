"""The errors a user of ptychopinn can meet.

Every message is one sentence for the user: what was given, what was expected, what to do. The command line prints it on
standard error and exits with code 2; a caller of the library catches `PtychoError` or the built-in class beside it.
"""

from ptycho.visible import visible


class PtychoError(Exception):
    """Base class of all errors that ptychopinn raises on purpose.

    Its text is one line without control codes: it may quote a file, and may be shown anywhere.
    """

    def __str__(self) -> str:
        """The message."""
        return visible(super().__str__())


class ConfigError(PtychoError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another; the message names the field."""


class DataError(PtychoError, ValueError):
    """A file or an array is not the scan it should be: unreadable, incomplete, of the wrong shape, or not physical."""


class BackendError(PtychoError, ImportError):
    """A backend is unknown or its framework is not installed; the message says what to install."""


class OutputError(PtychoError, OSError):
    """A result could not be written; nothing half-written is left behind."""
