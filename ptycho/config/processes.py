"""Rank of this process in a distributed training."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process prints and writes files: the only one, or the first that a launcher started."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
