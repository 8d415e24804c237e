"""The three training shims look alike, are short, and hold no physics."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from pathlib import Path

import pytest

from ptycho.backends import Backend, get_backend, get_trainer
from tests import support

SHIMS = Path(__file__).parents[2] / "shims"
NAMES = ("torch", "tensorflow", "jax")
FILES = ("__init__", "backend", "data", "model", "namespace", "persistence", "training")
LONGEST = 330

BESIDE = {
    "torch": {
        # PtychoPINN's names for its callers in PyTorch, which call the core
        "api",
        "config_bridge",
        "config_params",
        "data_container_bridge",
        "lightning_utils",
        # listening on this machine alone
        "loopback",
        "model_manager",
        "raw_data_bridge",
        "workflows",
        # Lightning trains in several processes, of which each may end; the others have one
        "processes",
        # the order of axes that PyTorch wants, shared by the module and the checkpoints for other programs
        "layout",
        # ONNX and torch.export programs, which the other frameworks do not write
        "export",
    },
    "tensorflow": set(),
    "jax": set(),
}
"""What a shim has beside the files that all have."""


def parsed(shim: str, file: str) -> ast.Module:
    return ast.parse((SHIMS / f"ptycho_{shim}" / f"{file}.py").read_text(encoding="utf-8"))


def definitions(module: ast.Module) -> list[str]:
    return [node.name for node in module.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def methods(module: ast.Module, name: str) -> list[str]:
    (node,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)
    return [n.name for n in node.body if isinstance(n, ast.FunctionDef)]


class TestAlike:
    @pytest.mark.parametrize("shim", NAMES)
    def test_same_files(self, shim):
        folder = SHIMS / f"ptycho_{shim}"
        found = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
        assert found == {*FILES, *BESIDE[shim]}
        assert (folder / "py.typed").is_file()

    @pytest.mark.parametrize(
        ("file", "first"),
        [("backend", r"\w+Backend"), ("data", "PtychoData"), ("model", "PtychoMod(ule|el)"), ("training", "Trainer"),
         ("persistence", "native_members")],
    )  # fmt: skip
    @pytest.mark.parametrize("shim", NAMES)
    def test_a_file_begins_with_what_it_is_for(self, shim, file, first):
        assert re.fullmatch(first, definitions(parsed(shim, file))[0])

    @pytest.mark.parametrize("file", FILES)
    def test_what_they_share_stands_in_one_order(self, file):
        for one, other in itertools.combinations(NAMES, 2):
            a, b = (definitions(parsed(shim, file)) for shim in (one, other))
            assert [name for name in a if name in b] == [name for name in b if name in a], (one, other)

    @pytest.mark.parametrize("shim", NAMES)
    def test_the_primitives_stand_in_the_protocols_order(self, shim):
        module = parsed(shim, "backend")
        lent = [name for name in vars(Backend) if not name.startswith("_") and callable(vars(Backend)[name])]
        assert [name for name in methods(module, definitions(module)[0]) if not name.startswith("_")] == lent

    @pytest.mark.parametrize("shim", NAMES)
    def test_the_trainers_begin_alike(self, shim):
        assert methods(parsed(shim, "training"), "Trainer")[:2] == ["__init__", "fit"]


def plain(function) -> list[tuple[str, object]]:
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


def test_the_trainers_have_one_signature():
    needs = {"pytorch": "lightning", "tensorflow": "tensorflow", "jax": "optax"}
    found = [get_trainer(name) for name, module in needs.items() if support.installed(module)]
    if not found:
        pytest.skip("no backend that trains is installed")
    for trainer in found:
        assert plain(trainer.__init__) == [
            ("self", inspect.Parameter.empty), ("config", inspect.Parameter.empty), ("progress", ()), ("log_dir", None)
        ]  # fmt: skip
        fit = ["self", "model", "params", "training", "validation", "resume"]
        assert [name for name, _ in plain(trainer.fit)] == fit


def test_the_primitives_have_the_protocols_signatures(backend):
    for name, function in vars(Backend).items():
        if not name.startswith("_") and callable(function):
            assert plain(getattr(backend, name)) == plain(function)[1:], name


def test_a_namespace_is_only_a_name_where_the_framework_has_one():
    for shim in ("torch", "jax"):
        assert definitions(parsed(shim, "namespace")) == []
    assert get_backend("numpy").xp.__name__ == "array_api_compat.numpy"


@pytest.mark.parametrize(("shim", "file"), list(itertools.product(NAMES, FILES)))
def test_read_in_one_sitting(shim, file):
    assert len((SHIMS / f"ptycho_{shim}" / f"{file}.py").read_text(encoding="utf-8").splitlines()) <= LONGEST


PHYSICS = re.compile(
    r"i?r?fft\w*|hfft\w*|\w*shift|stft"  # propagation
    r"|grid_sample|affine_grid|map_coordinates|griddata|resize\w*|bilinear|bicubic|translate|zoom"  # interpolation
    r"|\w*poisson\w*|\w*nll\w*|\w*_loss|\w+Loss|losses|huber\w*|mse\w*|mae|mean_squared_error|mean_absolute_error"
    r"|cross_entropy\w*|squared_gradient|total_variation|image_gradients"  # likelihoods and losses
    r"|c?KDTree|cdist|top_?k|argsort|NearestNeighbors|BallTree"  # grouping
    r"|angle|polar|illuminate|far_field|near_field",
)


def physics_in(module: ast.Module) -> list[str]:
    """What a module calls, imports or looks up that belongs to the physics."""
    found = []
    for node in ast.walk(module):
        names: list[str] = []
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names = [node.id] if node.id != "losses" else []  # what the core told of a batch
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [part for alias in node.names for part in alias.name.split(".")]
            source = getattr(node, "module", None) or ""
            if re.match(r"ptycho\.(physics|engines|evaluation)|scipy|skimage", source):
                names.append("fft")
        found += [f"line {node.lineno}: {name}" for name in names if PHYSICS.fullmatch(name)]
    return found


@pytest.mark.parametrize("file", [file for file in FILES if file != "namespace"])
@pytest.mark.parametrize("shim", NAMES)
def test_no_physics(shim, file):
    assert physics_in(parsed(shim, file)) == []


@pytest.mark.parametrize(
    "line",
    ["torch.fft.fft2(x)", "tf.signal.fft2d(x)", "functional.grid_sample(x, g)", "functional.poisson_nll_loss(a, b)",
     "keras.losses.MeanSquaredError()", "optax.l2_loss(x)", "from scipy.spatial import cKDTree", "tf.math.angle(x)",
     "from ptycho.physics.patches import extract_patches", "jnp.roll(x, 1) + jnp.fft.fftshift(x)"],
)  # fmt: skip
def test_physics_would_be_seen(line):
    assert physics_in(ast.parse(line))
