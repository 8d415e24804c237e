"""The errors a user of ptychopinn can meet.

Every message is one sentence for the user: what was given, what was expected, what to do. The command line prints it on
standard error and exits with code 2; a caller of the library catches `PtychoError` or the built-in class beside it.
"""

from ptycho.visible import visible


class PtychoError(Exception):
    """Base class of all errors that ptychopinn raises on purpose.

    Its text is one line without control codes: it may quote a file, and may be shown anywhere.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> all(issubclass(one, ptycho.PtychoError) for one in (ptycho.ConfigError, ptycho.DataError, ptycho.OutputError))
    True
    """

    def __str__(self) -> str:
        """The message."""
        return visible(super().__str__())


class ConfigError(PtychoError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another; the message names the field.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> try:
    ...     ptycho.TrainingConfig(nepochs=-3)
    ... except ptycho.ConfigError as error:
    ...     print(error)
    nepochs = -3 is not possible: expected an integer, at least 1.
    """


class DataError(PtychoError, ValueError):
    """A file or an array is not the scan it should be: unreadable, incomplete, of the wrong shape, or not physical.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> try:
    ...     ptycho.load_scan("missing.npz")
    ... except ptycho.DataError as error:
    ...     print(type(error).__name__)
    DataError
    """


class BackendError(PtychoError, ImportError):
    """A backend is unknown or its framework is not installed; the message says what to install.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> try:
    ...     ptycho.get_backend("abacus")
    ... except ptycho.BackendError as error:
    ...     print(type(error).__name__)
    BackendError
    """


class OutputError(PtychoError, OSError):
    """A result could not be written; nothing half-written is left behind.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> ptycho.save_npz(scan, "scan.npz")
    >>> try:
    ...     ptycho.save_npz(scan, "scan.npz")
    ... except ptycho.OutputError as error:
    ...     print(type(error).__name__)
    OutputError
    """
