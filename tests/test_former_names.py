"""Names that have been replaced by usual ones do not come back, but as deprecated spellings, which are strings.

A former name that is defined again, as a module, class, function, argument, attribute, setting or constant, is found by
its kind, so that the same word may mean something else elsewhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "ptycho").rglob("*.py"), *(ROOT / "shims").rglob("*.py")])

MODULES = (
    *("ptycho/onlooker.py", "ptycho/backend.py", "ptycho/windows.py", "ptycho/windows_compiled.py", "ptycho/cli.py"),
    *("ptycho/cli_words.py", "ptycho/cli/words.py", "ptycho/cli_engines.py", "ptycho/cli_training.py"),
    *("ptycho/cli_page.py", "ptycho/cli_progress.py", "ptycho/cli_help.py"),
    *("ptycho/engines/strays.py", "ptycho/engines/detector.py", "ptycho/engines/canvas.py"),
    *("ptycho/engines/measured.py", "ptycho/engines/settle.py", "ptycho/engines/moves.py"),
    *("ptycho/engines/waves.py", "ptycho/engines/variation.py", "ptycho/data/ahead.py"),
    *("ptycho/data/readers/exact.py", "ptycho/workflows/answer.py", "ptycho/workflows/quality.py"),
    *("ptycho/workflows/output.py", "ptycho/model/foreign.py", "ptycho/model/plain_pickle.py"),
)
NAMES = frozenset(
    "Onlooker Lit WaveChange Measured Laid Crew Course EpochTold StepTold "  # classes
    "strays find_strays laid_together wave_change modulus_update total_variation crew_on go_back unhindered "
    "estimate_passes judged judge engine_batch averaged crew".split()
)
"""Of classes, functions, methods, arguments, attributes and settings, anywhere."""
MEMBERS = {
    "Engine": {"met", "lend", "keep", "memory"},
    "State": {"memory"},
    "Reconstruction": {"figures"},
    "Scan": {"kept", "together"},
    "Bundle": {"side"},
    "Container": {"factor"},
    "Observer": {"look"},
}
"""Methods and attributes of single classes."""
CLASSES = {"ptycho/engines": {"Canvas"}}
"""Classes of single packages."""
SETTINGS = {"shift"}
"""Settings, whose flags have these names too."""
CONSTANTS = re.compile(r"_(MOST|EACH|BETTER|RIVAL|ASTRAY)(_\w+)?|_host")
PROSE = re.compile(r"\b(porch|house rules?|of the house|onlookers?|the crew)\b", re.IGNORECASE)

TO_DO: frozenset[str] = frozenset()
"""What is still to be renamed."""


def defined(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Kind, name and line of all that a module defines; of attributes and methods with the class before the name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield "class", node.name, node.lineno
            for inner in node.body:
                yield from ((kind, f"{node.name}.{name}", line) for kind, name, line in members(inner))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield "function", node.name, node.lineno
            arguments = node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                yield "argument", argument.arg, node.lineno
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            yield from (("constant", each.id, each.lineno) for each in ast.walk(target) if isinstance(each, ast.Name))


def members(node: ast.stmt) -> Iterator[tuple[str, str, int]]:
    """Fields, methods and attributes that a statement in the body of a class defines."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        called = node.value.func if isinstance(node.value, ast.Call) else None
        kind = "setting" if isinstance(called, ast.Name) and called.id == "setting" else "attribute"
        yield kind, node.target.id, node.lineno
    if isinstance(node, ast.FunctionDef):
        yield "attribute", node.name, node.lineno
        for inner in ast.walk(node):
            written = isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
            if written and isinstance(inner.value, ast.Name) and inner.value.id == "self":
                yield "attribute", inner.attr, inner.lineno


def is_former(kind: str, name: str, path: str) -> bool:
    """Whether a definition has a former name."""
    owner, _, last = name.rpartition(".")
    if last in NAMES or last in MEMBERS.get(owner, ()):
        return True
    if kind == "class":
        return any(path.startswith(package) and name in names for package, names in CLASSES.items())
    return (kind == "setting" and last in SETTINGS) or (kind == "constant" and CONSTANTS.fullmatch(name) is not None)


def found_in(source: str, path: str) -> list[tuple[str, str]]:
    """The former names in a source, each with the place where it is defined."""
    return [
        (name, f"{path}:{line} {kind} {name}")
        for kind, name, line in defined(ast.parse(source))
        if is_former(kind, name, path)
    ]


def test_no_module_has_a_former_name():
    assert not [path for path in MODULES if (ROOT / path).exists()]


def test_nothing_has_a_former_name():
    found = [
        each
        for path in SOURCES
        for each in found_in(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]
    assert not [place for name, place in found if name not in TO_DO]


@pytest.mark.parametrize(
    "source",
    [
        "class Onlooker: ...",
        "def find_strays(): ...",
        "def change(waves, judge=False): ...",
        "class Any:\n    estimate_passes: int = 3",
        "class Engine:\n    def lend(self): ...",
        "class Scan:\n    @property\n    def together(self): ...",
        "class Engine:\n    def start(self):\n        self.memory = {}",
        "class Settings:\n    shift: str = setting('bilinear', 'how')",
        "class Canvas: ...",
        "_MOST_PIXELS = 3",
        "_host: Any = NumpyBackend.xp",
    ],
)
def test_former_names_are_seen(source):
    assert found_in(source, "ptycho/engines/any.py")


@pytest.mark.parametrize(
    "source",
    [
        "class Registration:\n    shift: tuple[float, float] = (0.0, 0.0)",
        "class Forecast:\n    memory: int = 0",
        "FORMER = {'estimate_passes': 'start_iterations'}",
        "def reduce(keep): ...",
    ],
)
def test_the_same_words_elsewhere_are_not(source):
    assert not found_in(source, "ptycho/engines/any.py")


def test_prose_has_no_former_words():
    texts = [*SOURCES, *(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile"]
    texts += [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PROSE.search(line)
    ]
    assert not found
