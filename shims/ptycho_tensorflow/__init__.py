"""TensorFlow lends its arrays, gradients, Keras's training loop and its file format to ptycho."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator

# Defaults that the user's own environment overrules; TensorFlow and Keras read them once, when they are imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@contextlib.contextmanager
def _kept_from_the_terminal() -> Iterator[None]:
    """Whatever is written to the process's stderr appears only if the body fails.

    TensorFlow's libraries greet there while they load, before they have read any setting that would stop them.
    """
    try:
        terminal = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


if "tensorflow" not in sys.modules:
    with _kept_from_the_terminal():
        importlib.import_module("tensorflow")
