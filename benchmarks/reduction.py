"""The cost of summing the canvases of many workers: as a tree, in one place, or as it is done.

    python -m benchmarks.reduction [--patterns 1e6 ...] [--workers 16 ...] [--overlap 0.9 ...] [--real]

Simulated are three ways to one canvas of the whole field from those of chunks of neighbouring patterns (24 bytes a
pixel), of which every worker has a run. Tree: two neighbouring ones are summed where the larger lies, and their sums
again, until one is left, which is sent. Flat: every chunk's is sent to one machine, which adds it in place. Run: every
worker sums its own as a tree, and only that is sent; `ptycho.workflows.cluster_sums` does this. Times follow from what
a machine sends or receives and adds up per second. `--overlap` is linear: 0.9 is a step of a tenth of the patch.
`--real` lets processes of this machine do a small one and prints what they sent beside what is simulated of it.
"""

from __future__ import annotations

import argparse
import functools
import heapq
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ptycho.data.regions import compact_runs
from ptycho.physics.reassembly import PartialReassembly, merge_partials

BYTES = 24
"""Of a pixel of a canvas that is not averaged yet: complex128 and float64."""


@dataclass(frozen=True)
class Machine:
    """What one worker can do, and the one that everything ends on."""

    network: float = 1.2e9
    """Bytes that it sends or receives per second: 10 Gbit/s."""
    adding: float = 2e9
    """Bytes of a sum per second."""
    latency: float = 2e-3
    """Seconds for a task, whatever it does."""
    pattern: float = 5e-3
    """Seconds for a pattern through the network."""


class Box(NamedTuple):
    """Part of the field, pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def bytes(self) -> int:
        """Of its canvas."""
        return BYTES * (self.bottom - self.top) * (self.right - self.left)

    def together(self, other: Box) -> Box:
        """The smallest that holds both."""
        return Box(*map(min, self[:2], other[:2]), *map(max, self[2:], other[2:]))


@dataclass
class Cost:
    """What a reduction took."""

    moved: int = 0
    received: dict[int, int] = field(default_factory=dict)
    """Bytes by worker; of the machine that everything ends on, -1."""
    seconds: float = 0.0

    def send(self, size: int, to: int) -> None:
        """Note that a canvas was sent."""
        self.moved += size
        self.received[to] = self.received.get(to, 0) + size


def boxes(patterns: float, chunk: int, size: int, step: float, workers: int) -> list[list[Box]]:
    """The canvases of square chunks that cover a square field, a run of neighbours for each worker."""
    side = max(1, round(math.sqrt(patterns / chunk)))
    wide = math.sqrt(patterns) * step / side
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    corners, reach = np.round(cells * wide).astype(int), round(wide) + size
    found = [Box(row, column, row + reach, column + reach) for row, column in corners.tolist()]
    runs = compact_runs(cells.astype(float), workers, 1)
    return [[found[int(number)] for (number,) in run] for run in runs]


def pairs(runs: Sequence[int], whole: bool) -> list[tuple[int, int]]:
    """Which two canvases each sum is of; above those of the chunks are the numbers of the sums themselves.

    Those of each run, of which the lengths are given, are summed first; if the whole is wanted, neighbouring runs then.
    """
    found: list[tuple[int, int]] = []
    stacks: list[list[tuple[int, int]]] = []
    count, first = sum(runs), 0

    def add(stack: list[tuple[int, int]]) -> None:
        (level, one), (_, other) = stack[-2:]
        stack[-2:] = [(level + 1, count + len(found))]
        found.append((one, other))

    for length in runs:
        stack: list[tuple[int, int]] = []
        for number in range(first, first + length):
            stack.append((0, number))
            while len(stack) > 1 and (stack[-1][0] == stack[-2][0] or number == first + length - 1):
                add(stack)
        stacks.append(stack)
        first += length
    while whole and len(stacks) > 1:
        for one, other in zip(stacks[::2], stacks[1::2], strict=False):
            one.append(other.pop())
            add(one)
        stacks = [stack for stack in stacks if stack]
    return found


def tree(runs: list[list[Box]], machine: Machine, seconds_each: float, whole: bool = True) -> Cost:
    """A sum is made before the next chunk, on the worker that has the larger part of it; not whole: of each its own."""
    held = [leaf for run in runs for leaf in run]
    cost, sums, n = Cost(), pairs([len(run) for run in runs], whole), len(held)
    for first, second in sums:
        held.append(held[first].together(held[second]))
    sum_of = {part: number for number, both in enumerate(sums, n) for part in both}
    place: dict[int, int] = {}
    waiting: list[deque[int]] = [deque() for _ in runs]
    numbers = iter(range(n))
    chunks = [iter([next(numbers) for _ in run]) for run in runs]
    idle, events, last = set(range(len(runs))), list[tuple[float, int, int]](), list[tuple[float, int]]()

    def begin(worker: int, now: float) -> None:
        if waiting[worker]:
            task = waiting[worker].popleft()
            far = sum(held[part].bytes for part in sums[task - n] if place[part] != worker)
            cost.send(far, worker)
            took = far / machine.network + held[task].bytes / machine.adding
        else:
            task, took = next(chunks[worker], -1), seconds_each
        if task < 0:
            idle.add(worker)
            return
        idle.discard(worker)
        heapq.heappush(events, (now + machine.latency + took, worker, task))

    for worker in range(len(runs)):
        begin(worker, 0.0)
    while events:
        now, worker, task = heapq.heappop(events)
        place[task] = worker
        if task not in sum_of:
            last.append((now, held[task].bytes))
        elif all(part in place for part in sums[sum_of[task] - n]):
            above = sum_of[task]
            target = place[max(sums[above - n], key=lambda part: held[part].bytes)]
            waiting[target].append(above)
            if target in idle:
                begin(target, now)
        begin(worker, now)
    return arrive(cost, last, machine)


def arrive(cost: Cost, sent: list[tuple[float, int]], machine: Machine) -> Cost:
    """Canvases that are ready at some time, received by one machine one after the other, and added in place."""
    for ready, size in sent:
        cost.send(size, -1)
        cost.seconds = max(cost.seconds, ready) + machine.latency + size / machine.network + size / machine.adding
    return cost


def flat(runs: list[list[Box]], machine: Machine, seconds_each: float) -> Cost:
    """Every canvas is sent as soon as it is there."""
    each = seconds_each + machine.latency
    ready = sorted((turn * each, leaf.bytes) for run in runs for turn, leaf in enumerate(run, 1))
    return arrive(Cost(), ready, machine)


def run(runs: list[list[Box]], machine: Machine, seconds_each: float) -> Cost:
    """Every worker sums its own."""
    return tree(runs, machine, seconds_each, whole=False)


def row(patterns: float, workers: int, overlap: float, size: int, chunk: int, machine: Machine) -> str:
    """One line of the table."""
    runs = boxes(patterns, chunk, size, size * (1 - overlap), workers)
    each = machine.pattern * patterns / sum(map(len, runs))
    compute = max(map(len, runs)) * (each + machine.latency)
    costs = [way(runs, machine, each) for way in (tree, flat, run)]
    whole = functools.reduce(Box.together, (leaf for mine in runs for leaf in mine))
    cells = [f"{patterns:.0e}", f"{overlap:g}", f"{workers}", f"{whole.bytes / 1e9:.3g}", f"{compute:.3g}"]
    for cost in costs:
        cells += [
            f"{cost.moved / 1e9:.3g}",
            f"{max(cost.received.values()) / 1e9:.3g}",
            f"{cost.seconds - compute:.3g}",
        ]
    return f"| {' | '.join(cells)} |"


HEAD = [
    "| patterns | overlap | workers | canvas, GB | network, s | "
    + " | ".join(f"{way}: GB sent | into one | then, s" for way in ("tree", "flat", "run"))
    + " |",
    "| --- " * 14 + "|",
]


def lay(box: Box) -> PartialReassembly:
    """A canvas like a chunk's."""
    shape = box.bottom - box.top, box.right - box.left
    return PartialReassembly(np.ones(shape, np.complex128), np.ones(shape), (float(box.top), float(box.left)))


def add(first: PartialReassembly, second: PartialReassembly) -> PartialReassembly:
    """Their sum."""
    return merge_partials([first, second])


def received(dask_worker: Any) -> int:
    """Bytes that a worker has received from others."""
    return int(sum(entry["total"] for entry in dask_worker.transfer_incoming_log))


def real(workers: int = 4, chunks: int = 64, wide: int = 192, size: int = 64) -> list[str]:
    """Small reductions by processes of this machine, beside what is simulated of them."""
    import distributed

    from ptycho.workflows.cluster_sums import sums_by

    runs, place = boxes(chunks, 1, size, wide, workers), "127.0.0.1:0"

    def as_tree(client: Any) -> None:
        homes = zip(client.nthreads(), runs, strict=True)
        made = [client.submit(lay, leaf, workers=[at], pure=False) for at, mine in homes for leaf in mine]
        for first, second in pairs([len(mine) for mine in runs], whole=True):
            made.append(client.submit(add, made[first], made[second], pure=False))
        made[-1].result()

    def as_runs(client: Any) -> None:
        for _ in sums_by(client, lay, [[[leaf] for leaf in mine] for mine in runs], tuple, add):
            pass

    lines = [f"{chunks} canvases of {runs[0][0].bytes / 1e6:.3g} MB, {workers} processes of this machine"]
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=place, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(workers)
        as_runs(client)  # everything is imported after that
        for name, way, whole in (("tree", as_tree, True), ("run", as_runs, False)):
            before, began = sum(client.run(received).values()), time.perf_counter()
            way(client)
            took, moved = time.perf_counter() - began, sum(client.run(received).values()) - before
            expected = tree(runs, Machine(), 0.0, whole)
            between = expected.moved - expected.received[-1]
            lines.append(
                f"{name}: {moved / 1e6:.4g} MB between them, simulated {between / 1e6:.4g} MB; "
                f"{expected.received[-1] / 1e6:.4g} MB to the client; {took:.2f} s"
            )
    return lines


def main() -> None:
    """Simulate, print the table; do a small one where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patterns", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--overlap", type=float, nargs="+", default=[0.7, 0.9])
    parser.add_argument("--size", type=int, default=64, help="side of a patch, pixels")
    parser.add_argument("--chunk", type=int, default=2048, help="patterns in a chunk")
    parser.add_argument("--network", type=float, default=Machine.network, help="bytes per second of one machine")
    parser.add_argument("--pattern", type=float, default=Machine.pattern, help="seconds for a pattern")
    parser.add_argument("--real", action="store_true", help="also let processes of this machine do a small one")
    args = parser.parse_args()
    machine = Machine(network=args.network, pattern=args.pattern)
    print("\n".join(HEAD))
    for patterns in args.patterns:
        for overlap in args.overlap:
            for workers in args.workers:
                print(row(patterns, workers, overlap, args.size, args.chunk, machine), flush=True)
    if args.real:
        print()
        print("\n".join(real()))


if __name__ == "__main__":
    main()
