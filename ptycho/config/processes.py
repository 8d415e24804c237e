"""Which of the processes of a distributed training this is."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process speaks and writes: the only one, or the first of those that a launcher started."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
