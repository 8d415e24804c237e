"""The conventions that neither ruff nor import-linter can check; each finding names file and line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ptycho

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "ptycho").rglob("*.py"))
SHIMS = sorted((ROOT / "shims").rglob("*.py"))
ARRAY_CODE = [
    path for package in ("physics", "model", "engines") for path in sorted((ROOT / "ptycho" / package).rglob("*.py"))
]

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "lightning", "pytorch_lightning", "flax", "optax")
HEAVY = (
    *FRAMEWORKS,
    "array_api_compat",
    "h5py",
    "hdf5plugin",
    "matplotlib",
    "rich",
    "scipy",
    "skimage",
)

# For code that takes its namespace from its argument; `# host` marks a line that works on numpy on purpose.
NUMPY_DATA_FUNCTIONS = frozenset(
    "fft floor take where exp sqrt sum mean zeros ones full arange concatenate stack reshape transpose abs".split()
)
CREATION = frozenset("zeros ones empty full arange linspace eye".split())
ARRAY_METHODS = frozenset("astype reshape transpose sum mean conj ravel flatten squeeze swapaxes permute clip".split())
HOST_MARK = "# host"


def where(path: Path, node: ast.AST | int) -> str:
    line = node if isinstance(node, int) else getattr(node, "lineno", 0)
    return f"{path.relative_to(ROOT)}:{line}"


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Every module that a file imports, anywhere in it, by statement or by `import_module("name")`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "importorskip") and isinstance(node.args[0].value, str):
                yield node.args[0].value, node


def functions(module: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef))


def namespace_functions(module: ast.Module) -> Iterator[ast.FunctionDef]:
    """The functions that ask for the namespace of their argument or are handed one."""
    for function in functions(module):
        names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        if names & {"xp", "array_namespace"}:
            yield function


def breaches(rule: Callable[[ast.AST], bool], source: str) -> Iterator[ast.AST]:
    """Where the array code in a source breaks a rule, but for lines that work on the host on purpose."""
    lines = source.splitlines()
    for function in namespace_functions(ast.parse(source)):
        for node in ast.walk(function):
            if rule(node) and HOST_MARK not in lines[node.lineno - 1]:
                yield node


def _attribute_of(node: ast.AST, name: str) -> str | None:
    """The x of `name.x` or `name.x.y`."""
    while isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == name:
            return node.attr
        node = node.value
    return None


def test_library_imports_no_framework():
    found = [
        f"{where(path, node)} {name}"
        for path in LIBRARY
        for name, node in imports(path)
        if name.split(".")[0] in FRAMEWORKS or name.startswith("array_api_compat.torch")
    ]
    assert not found


def test_library_imports_no_shim():
    found = [f"{where(p, node)} {name}" for p in LIBRARY for name, node in imports(p) if name.startswith("ptycho_")]
    assert not found


def test_import_ptycho_loads_nothing_heavy():
    code = "import sys; before = set(sys.modules); import ptycho; print(*sorted(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = run.stdout.split()
    assert "ptycho" in loaded
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_public_names_exist_and_are_documented():
    for name in ptycho.__all__:
        value = getattr(ptycho, name)
        assert name.startswith("__") or value.__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        ptycho.no_such_name  # noqa: B018


def numpy_on_data(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and _attribute_of(node, "np") in NUMPY_DATA_FUNCTIONS


def array_method(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ARRAY_METHODS
        and _attribute_of(node.func, "xp") is None
        and _attribute_of(node.func, "np") is None
    )


def creation_without_dtype_and_device(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and _attribute_of(node.func, "xp") in CREATION
        and not {"dtype", "device"} <= {keyword.arg for keyword in node.keywords}
    )


def write_in_place(node: ast.AST) -> bool:
    if isinstance(node, ast.AugAssign):
        return isinstance(node.target, ast.Subscript)
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(t, ast.Subscript) and isinstance(t.slice, ast.Slice | ast.Tuple) for t in targets)


def negative_step(node: ast.AST) -> bool:
    slices = ast.walk(node.slice) if isinstance(node, ast.Subscript) else ()
    return any(isinstance(part, ast.Slice) and isinstance(part.step, ast.UnaryOp) for part in slices)


ARRAY_RULES = {
    numpy_on_data: ("np.sqrt(x)", "np.fft.fft2(x)"),
    array_method: ("x.astype(dtype)", "xp.abs(x).sum()"),
    creation_without_dtype_and_device: ("xp.zeros(shape)", "xp.arange(3, dtype=dtype)"),
    write_in_place: ("x[0, :] = 0", "x[k] += y"),
    negative_step: ("x[::-1]", "x[:, ::-1]"),
}


@pytest.mark.parametrize("rule", ARRAY_RULES, ids=lambda rule: rule.__name__)
def test_array_code_keeps(rule):
    found = [
        f"{where(path, node)} {ast.unparse(node)}"
        for path in ARRAY_CODE
        for node in breaches(rule, path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(("rule", "line"), [(rule, line) for rule, lines in ARRAY_RULES.items() for line in lines])
def test_array_rule_sees(rule, line):
    source = f"def f(x, y, dtype, shape, k):\n    xp = array_namespace(x)\n    {line}{{}}\n    return xp.abs(x)\n"
    assert list(breaches(rule, source.format("")))
    assert not list(breaches(rule, source.format("  # host")))


def test_shims_hold_no_physics():
    forbidden = re.compile(
        r"fft|bilinear|bicubic|grid_sample|kd_?tree|poisson|nll_loss|mse_loss|l1_loss|interpolate\((?!.*mode=\"nearest\")",
        re.IGNORECASE,
    )
    found = [
        f"{where(path, number)} {line.strip()}"
        for path in SHIMS
        if path.name != "namespace.py"  # the standard's own names stand there
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert not found


def test_library_does_not_print():
    found = [
        where(path, node)
        for path in (*LIBRARY, *SHIMS)
        if path.parent != ROOT / "ptycho" / "cli"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not found


def test_no_module_changes_its_globals():
    found = [
        where(path, node)
        for path in (*LIBRARY, *SHIMS)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Global)
    ]
    assert not found


def test_nothing_is_unpickled_on_loading():
    unsafe = re.compile(r"allow_pickle\s*=\s*True|weights_only\s*=\s*False|safe_mode\s*=\s*False|dill\.loads?\(")
    found = [
        f"{where(path, number)} {line.strip()}"
        for path in (*LIBRARY, *SHIMS)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if unsafe.search(line)
    ]
    assert not found


def test_nothing_is_left_undone():
    words = re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b|raise NotImplementedError")
    found = [
        f"{where(path, number)} {line.strip()}"
        for path in (*LIBRARY, *SHIMS)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if words.search(line)
    ]
    assert not found


def test_modules_and_functions_are_short():
    found = []
    for path in (*LIBRARY, *SHIMS):
        length = len(path.read_text(encoding="utf-8").splitlines())
        if length > 400:
            found.append(f"{where(path, 0)} {length} lines")
        for function in functions(tree(path)):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > 50:
                found.append(f"{where(path, function)} {function.name}: {lines} lines")
    assert not found


def test_the_picture_of_the_layers_is_up_to_date():
    pytest.importorskip("grimp")
    command = [sys.executable, ROOT / "tools" / "draw_layers.py", "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run 'python tools/draw_layers.py'"
