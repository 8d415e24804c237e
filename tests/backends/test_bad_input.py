"""Arrays that do not go together: one rule, and one error, in every framework."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptycho.backends import get_backend
from ptycho.errors import DataError
from tests import support
from tests.backends.cases import CASES, Draw, cast

ROOT = Path(__file__).parents[2]
PHYSICS = [case for case in CASES if case.row.module != "Backend"]
POSITIONS = ("positions", "relative")


def arguments(*, positions: bool | None = None):
    """(case, name) of every array beside the first; positions only, without them, or both."""
    pairs = [(case, name) for case in PHYSICS for name in list(case.arrays(Draw(0)))[1:]]
    chosen = [(case, name) for case, name in pairs if positions is None or (name in POSITIONS) == positions]
    return pytest.mark.parametrize(("case", "name"), chosen, ids=[f"{case.name}-{name}" for case, name in chosen])


def arrays_of(case, xp, dtype="float32"):
    return {name: support.array(xp, values) for name, values in cast(case.arrays(Draw(0)), dtype).items()}


def stranger_to(xp) -> str:
    """A namespace of another framework that every environment has."""
    return "array_api_strict" if get_backend(xp.asarray(np.zeros(1))).name == "numpy" else "numpy"


_ANOTHER = r"^{}: got an array of \w+ beside [\w\[\]]+ of \w+; expected one framework"


class TestAnotherFramework:
    @arguments(positions=False)
    def test_is_told(self, xp, case, name):
        arrays = arrays_of(case, xp)
        arrays[name] = arrays_of(case, support.namespace(stranger_to(xp)))[name]
        with pytest.raises(DataError, match=_ANOTHER.format(re.escape(name))):
            case(arrays)

    @arguments(positions=True)
    def test_positions_of_another_framework_are_told(self, xp, case, name):
        arrays = arrays_of(case, xp)
        if xp.__name__ == "array_api_strict":
            stranger = "torch"
            pytest.importorskip(stranger)
        else:
            stranger = "array_api_strict"
        arrays[name] = arrays_of(case, support.namespace(stranger))[name]
        with pytest.raises(DataError, match=_ANOTHER.format(re.escape(name))):
            case(arrays)

    @arguments(positions=True)
    def test_positions_may_be_numpys(self, xp, case, name):
        arrays = arrays_of(case, xp)
        wanted = case(arrays)
        for ours, theirs in zip(case({**arrays, name: support.as_numpy(arrays[name])}), wanted, strict=True):
            support.assert_close(ours, theirs, rtol=0.0)


WIDENED = [
    case
    for case in PHYSICS
    if case.row.name
    in (
        "illuminate",
        "diffraction_intensity",
        "diffraction_amplitude",
        "complex_mae",
        "pie_object_update",
        "exit_wave_update",
        "photons_per_pattern",
        "incoming_waves",
        "multislice_intensity",
    )
]


class TestPrecisions:
    @pytest.mark.parametrize("wide", [0, 1])
    @pytest.mark.parametrize("case", WIDENED, ids=lambda case: case.name)
    def test_double_meets_single_in_double(self, xp, case, wide):
        host = case.arrays(Draw(0))
        single, double = cast(host, "float32"), cast(host, "float64")
        name = list(host)[wide]
        mixed = {**single, name: double[name]}
        wanted = case(cast(mixed, "float64"))
        for ours, truth in zip(case({k: support.array(xp, v) for k, v in mixed.items()}), wanted, strict=True):
            support.assert_close(ours, support.array(xp, truth), rtol=1e-10)

    @pytest.mark.parametrize("case", [c for c in PHYSICS if c not in WIDENED], ids=lambda case: case.name)
    def test_elsewhere_the_first_array_decides(self, xp, case):
        """Positions, windows and measured values serve the array beside them, in its precision."""
        host = case.arrays(Draw(0))
        first = next(iter(host))
        for one, other in (("float32", "float64"), ("float64", "float32")):
            mixed = {**cast(host, other), first: cast(host, one)[first]}
            wanted = case({k: support.array(xp, v) for k, v in cast(host, one).items()})
            for ours, like in zip(case({k: support.array(xp, v) for k, v in mixed.items()}), wanted, strict=True):
                if type(like) is float:
                    assert ours == pytest.approx(like, rel=1e-5)
                else:
                    support.assert_close(ours, like, rtol=1e-5)


@pytest.mark.parametrize("kind", ["int32", "int64", "uint16"])
@arguments(positions=True)
def test_whole_positions(xp, case, name, kind):
    if kind == "uint16" and xp.__name__.endswith("torch"):
        pytest.skip("PyTorch has few functions of uint16")
    arrays = arrays_of(case, xp)
    whole = np.abs(np.round(support.as_numpy(arrays[name])))
    wanted = case({**arrays, name: support.array(xp, whole)})
    for ours, like in zip(case({**arrays, name: support.array(xp, whole, kind)}), wanted, strict=True):
        support.assert_close(ours, like, rtol=0.0)


def told_on_another_device(xp, move) -> list[str]:
    """The arguments that the physics takes from another device without a word, or with another error than its own."""
    missed = []
    for case in PHYSICS:
        for name in list(case.arrays(Draw(0)))[1:]:
            arrays = arrays_of(case, xp)
            try:
                case({**arrays, name: move(arrays[name])})
                missed.append(f"{case.name}: {name}")
            except DataError as error:
                if not str(error).startswith(f"{name}: got an array on") or "expected one device" not in str(error):
                    missed.append(f"{case.name}: {name}: {error}")
    return missed


_TWO_DEVICES = {
    "jax": """
import jax
move = lambda array: jax.device_put(array, jax.devices()[1])
""",
    "tensorflow": """
import tensorflow as tf
(cpu, *_) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
def move(array):
    with tf.device("CPU:1"):
        return tf.identity(array)
""",
}


class TestAnotherDevice:
    def test_array_api_strict(self):
        strict = pytest.importorskip("array_api_strict")
        move = lambda array: strict.asarray(array, device=strict.Device("device1"))  # noqa: E731
        assert told_on_another_device(strict, move) == []

    def test_pytorch(self):
        pytest.importorskip("torch")
        assert told_on_another_device(support.namespace("torch"), lambda array: array.to("meta")) == []

    @pytest.mark.parametrize("name", _TWO_DEVICES)
    def test_where_the_devices_are_made_at_the_start(self, name):
        if not support.installed(name):
            pytest.skip(f"{name} is not installed")
        code = (
            f"import sys, json; sys.path[:0] = {[str(ROOT), str(ROOT / 'shims')]}\n"
            "from tests import support\n"
            "from tests.backends.test_bad_input import told_on_another_device\n"
            f"xp = support.namespace({name!r})\n{_TWO_DEVICES[name]}"
            "print(json.dumps(told_on_another_device(xp, move)))\n"
        )
        env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
        assert run.returncode == 0, run.stderr[-2000:]
        assert json.loads(run.stdout.splitlines()[-1]) == []
