"""What passes between the benchmark and a peer's process: NPZ files, and how the time is taken there.

This file and the adapters beside it run in the peers' environments: they import nothing of ptycho.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

if hasattr(os, "sched_setaffinity"):  # on one core, before anything is imported that counts them
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

__all__ = ["Watch", "allow_torchvision", "answer", "given", "memory_peak"]


def given() -> dict[str, Any]:
    """The work, from the NPZ file that the command line names first.

    Returns
    -------
    counts : (K, N, N) float32, zero frequency at pixel (N//2, N//2), in photons where the scan knows them.
    positions : (K, 2) float64, pixels, (row, col) of each patch's pixel N//2, all at least N/2 + 1.
    shape : (H, W) of an object that holds every patch with a few pixels to spare.
    probe : (P, N, N) complex64, in sqrt(photons), scaled to the brightest patterns.
    epochs, seed : integers; algorithm : a word.
    """
    with np.load(sys.argv[1], allow_pickle=False) as kept:
        work = {name: kept[name] for name in kept.files}
    return work | {name: work[name].item() for name in ("epochs", "seed", "algorithm")}


def answer(watch: Watch, object: np.ndarray, origin: Any, probe: np.ndarray, between: str, **more: Any) -> None:
    """Write the result to the NPZ file that the command line names second.

    Parameters
    ----------
    watch : the times.
    object : (H, W) complex.
    origin : (row, col) in the given positions' pixels of the object's pixel [0, 0].
    probe : (P, N, N) complex, in any unit.
    between : what the peer does between the pixels: ``bilinear``, ``integer`` (rounds), ``probe`` (moves the probe).
    more : ``positions`` where the peer changed them; ``own``, the misfit that the peer itself tells, and ``own_name``.
    """
    figures = {"started": watch.started, "first": watch.first, "epochs": np.array(watch.epochs), "peak": memory_peak()}
    np.savez(
        sys.argv[2], object=object, origin=np.array(origin, float), probe=probe, between=between, **figures, **more
    )


class Watch:
    """CPU seconds of this process: what it took to get ready, the first epoch, and each of the others."""

    def __init__(self) -> None:
        self.started, self.first = float("nan"), float("nan")
        self.epochs: list[float] = []
        self._last = float("nan")

    def ready(self) -> None:
        """All is imported and the reconstruction begins."""
        self.started = self._last = time.process_time()

    def epoch(self, *_: Any, **__: Any) -> None:
        """An epoch is over; the first counts everything since :meth:`ready`, compilation too."""
        now = time.process_time()
        if np.isnan(self.first):
            self.first = now - self._last
        else:
            self.epochs.append(now - self._last)
        self._last = now

    def around(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """``step`` that counts as an epoch whenever it returns."""

        def stepped(*args: Any, **kwargs: Any) -> Any:
            found = step(*args, **kwargs)
            self.epoch()
            return found

        return stepped


def memory_peak() -> float:
    """Largest resident memory of this process, MiB; NaN where the system does not tell."""
    told = Path("/proc/self/status")
    if told.is_file():  # what getrusage tells counts the process that started this one, too
        words = next(line.split() for line in told.read_text().splitlines() if line.startswith("VmHWM"))
        return float(words[1]) / 2**10
    try:
        import resource
    except ImportError:
        return float("nan")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def allow_torchvision() -> None:
    """Let torchvision be imported beside a PyTorch for the CPU, whose own operators it was not compiled for.

    Its operators on boxes, which nobody needs here, are declared without being there.
    """
    import torch

    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
