"""Draw the layers of the library as an SVG picture, from the imports themselves.

    python tools/draw_layers.py            write docs/layers.svg
    python tools/draw_layers.py --check    exit with 1 if that file is not what the imports give today

A box is a package (or a module at the top of ``ptycho/``). It stands one row above the highest of what it imports,
imports inside functions and for types included. Where one import implies another, as `workflows` to `physics` through
`engines`, no line is drawn for the latter.
"""

from __future__ import annotations

import html
import sys
from itertools import pairwise
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "layers.svg"
ROOTS = ("ptycho", "ptycho_torch", "ptycho_tensorflow", "ptycho_jax")
NAMES = ("raw_data", "loader", "probe", "params", "model_manager", "tf_helper")
TOGETHER = dict.fromkeys(NAMES, ", ".join(NAMES))
"""Modules that share a box: PtychoPINN's names, each of a few lines."""
LEFT_OUT = ("__main__", "_version", "__init__")
WIDTH, ROW, HEIGHT, MARGIN, LETTER = 940, 96, 38, 24, 8.4
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#5b6773", "#8a2be2")

Edges = dict[str, set[str]]


def box_of(module: str) -> str | None:
    """The box that a module belongs to; None for those that are not drawn."""
    top, _, rest = module.partition(".")
    if top != "ptycho":
        return top
    name = rest.partition(".")[0]
    return None if not name or name in LEFT_OUT else TOGETHER.get(name, name)


def imports() -> Edges:
    """What each box imports."""
    graph = grimp.build_graph(*ROOTS)
    found: Edges = {box: set() for module in graph.modules if (box := box_of(module))}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            importer, target = box_of(module), box_of(imported)
            if importer and target and importer != target:
                found[importer].add(target)
    return found


def levels(edges: Edges) -> dict[str, int]:
    """The row of each box, from 0 at the bottom."""
    found: dict[str, int] = {}

    def level(box: str, above: tuple[str, ...] = ()) -> int:
        if box in above:
            raise SystemExit(f"draw_layers: {' -> '.join([*above, box])} is a circle.")
        if box not in found:
            found[box] = 1 + max((level(below, (*above, box)) for below in sorted(edges[box])), default=-1)
        return found[box]

    for box in sorted(edges):
        level(box)
    return found


def without_implied(edges: Edges) -> Edges:
    """The edges but for those that others imply."""

    def reachable(box: str) -> set[str]:
        return set().union(*({below} | reachable(below) for below in edges[box]))

    return {box: below - set().union(*map(reachable, below)) for box, below in edges.items()}


def chains(level: dict[str, int], drawn: Edges) -> list[list[str]]:
    """Each line as the boxes that it touches from top to bottom; where it passes a row, an invisible box keeps room."""
    found = []
    for box in sorted(drawn):
        for target in sorted(drawn[box]):
            passed = [f"{box}>{target}@{row}" for row in range(level[box] - 1, level[target], -1)]
            found.append([box, *passed, target])
    return found


def places(level: dict[str, int], lines: list[list[str]]) -> dict[str, tuple[float, float, float]]:
    """Left edge, top and width of each box: centred rows, ordered so that boxes stand near what they import."""
    top = max(level.values())
    row_of = level | {name: int(name.partition("@")[2]) for line in lines for name in line[1:-1]}
    below: Edges = {name: set() for name in row_of}
    for line in lines:
        for upper, lower in pairwise(line):
            below[upper].add(lower)
    middle: dict[str, float] = {}
    found: dict[str, tuple[float, float, float]] = {}
    for number in range(top + 1):
        row = {name: LETTER * len(name) + 28 if name in level else 0.0 for name in row_of if row_of[name] == number}
        gap = (WIDTH - 2 * MARGIN - sum(row.values())) / (len(row) + 1)
        x = MARGIN + gap
        for name in sorted(row, key=lambda name: (_mean([middle[other] for other in below[name]]), name)):
            found[name] = (x, MARGIN + ROW * (top - number), row[name])
            middle[name] = x + row[name] / 2
            x += row[name] + gap
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else WIDTH / 2


def path(line: list[str], at: dict[str, tuple[float, float, float]], lines: list[list[str]]) -> str:
    """A line from the bottom of its first box to the top of its last one, as the commands of an SVG path."""

    def between(box: str, place: int, others: list[list[str]]) -> float:
        others = sorted(others, key=lambda other: (at[other[place]][0], other[place]))
        return at[box][0] + at[box][2] * (others.index(line) + 1) / (len(others) + 1)

    x = between(line[0], 1, [other for other in lines if other[0] == line[0]])
    y = at[line[0]][1] + HEIGHT
    commands = f"M{x:.0f} {y:.0f}"
    for name in line[1:]:
        last = name == line[-1]
        into = between(name, -2, [other for other in lines if other[-1] == name]) if last else at[name][0]
        top = at[name][1] - (5 if last else 0)
        half = (y + top) / 2
        commands += f"C{x:.0f} {half:.0f} {into:.0f} {half:.0f} {into:.0f} {top:.0f}"
        x, y = into, top
        if not last:
            y += HEIGHT
            commands += f"V{y:.0f}"
    return commands


def svg() -> str:
    """The picture."""
    edges = imports()
    level = levels(edges)
    lines = chains(level, without_implied(edges))
    at = places(level, lines)
    height = ROW * max(level.values()) + HEIGHT + 2 * MARGIN
    boxes = sorted(level, key=lambda name: (-level[name], at[name][0]))
    colour = {box: COLOURS[number % len(COLOURS)] for number, box in enumerate(boxes)}
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
            "<title>The packages of the library; a line leads from a package to one that it imports</title>",
            '<defs><marker id="head" viewBox="0 0 6 6" refX="3" refY="3" markerWidth="6" markerHeight="6" '
            'orient="auto"><path d="M0 0L6 3L0 6z" fill="#1c2733"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#fff"/>',
            '<g fill="none" stroke-width="1.6">',
            *(
                f'<path d="{path(line, at, lines)}" stroke="{colour[line[0]]}" marker-end="url(#head)"/>'
                for line in lines
            ),
            '</g>\n<g font-family="monospace" font-size="14" text-anchor="middle">',
            *(
                f'<rect x="{at[box][0]:.0f}" y="{at[box][1]:.0f}" width="{at[box][2]:.0f}" height="{HEIGHT}" rx="6" '
                f'fill="#fff" stroke="{colour[box]}" stroke-width="2"/><text fill="#1c2733" '
                f'x="{at[box][0] + at[box][2] / 2:.0f}" y="{at[box][1] + 24:.0f}">{html.escape(box)}</text>'
                for box in boxes
            ),
            "</g>\n</svg>\n",
        ]
    )


def main(words: list[str]) -> int:
    """Write the picture, or compare it with the file."""
    if words == ["--check"]:
        return int(not PICTURE.is_file() or PICTURE.read_text(encoding="utf-8") != svg())
    PICTURE.write_text(svg(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
