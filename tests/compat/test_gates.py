"""The settings dictionary: written when a run starts and when a bundle is loaded, and read by nobody inside."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from ptycho import params
from ptycho.config import InferenceConfig, published, update_legacy_dict
from ptycho.loader import load
from ptycho.model.bundle import save_bundle
from ptycho.tf_helper import reassemble_position
from ptycho.workflows import components, run
from ptycho.workflows.trained_model import trained_models
from tests.compat.conftest import small

ROOT = Path(__file__).parents[2]
COMPATIBILITY_NAMES = ("raw_data", "loader", "probe", "params", "model_manager", "tf_helper")


def scramble(*_: object, **__: object) -> None:
    """Make every setting nonsense, as an outside caller might."""
    for key in list(params.cfg):
        params.cfg[key] = "nonsense"
    params.cfg.update(N=3, gridsize=7, batch_size=-1, nphotons=0.0, probe_scale=0.0)


def test_a_run_publishes_its_settings_before_it_works(scan, monkeypatch):
    pytest.importorskip("torch")
    seen = {}

    def stop(*_, **__):
        seen.update(params.cfg)
        raise LookupError

    monkeypatch.setattr(run, "train", stop)
    config = small(2, probe_mask=True, output_dir=Path("/some/where"), n_subsample=None, train_data_file=Path("/x.npz"))
    params.cfg["n_subsample"] = 11
    with pytest.raises(LookupError):
        components.run_cdi_example(scan, None, config)
    expected = {
        "gridsize": 2,
        "object.big": True,
        "probe.big": True,
        "probe.mask": True,
        "probe.trainable": False,
        "intensity_scale.trainable": True,
        "positions.provided": True,
        "output_prefix": "/some/where",
        "train_data_file_path": "/x.npz",
        "n_subsample": 11,
        "batch_size": 8,
    }
    assert {key: seen.get(key) for key in expected} == expected
    assert not {"object_big", "probe_mask", "output_dir", "model"} & set(seen)


def test_a_loaded_bundle_publishes_its_settings(trained, tmp_path):
    save_bundle(trained[2]["bundle"], tmp_path)
    update_legacy_dict(params.cfg, InferenceConfig())
    assert params.get("gridsize") == 1
    components.load_inference_bundle(tmp_path)
    assert params.get("gridsize") == 2
    assert params.get("intensity_scale") == trained[2]["intensity_scale"]


def test_a_dictionary_changed_during_a_run_changes_nothing(scan):
    pytest.importorskip("torch")
    config = small(2, nepochs=2)
    calm = run.train_scan(scan, config)
    troubled = run.train_scan(scan, config, epochs=scramble, counters=lambda _: scramble)
    assert params.get("gridsize") == 7
    assert troubled.history == calm.history
    assert troubled.intensity_scale == calm.intensity_scale
    for name, values in calm.params.items():
        np.testing.assert_array_equal(troubled.params[name], values)
    stitched = [run.reconstruct_scan(scan, bundle, counters=lambda _: scramble) for bundle in (calm, troubled)]
    np.testing.assert_array_equal(stitched[0].object, stitched[1].object)
    images = [components.reassemble_cdi_image(scan, config, model=bundle)[0] for bundle in (calm, troubled)]
    np.testing.assert_array_equal(*images)


def test_nor_between_the_steps_of_an_outside_caller(trained, raw):
    """Groups whose gridsize is said, prediction and stitching; only what a caller reads himself changes."""

    def image(between):
        grouped = raw.generate_grouped_data(64, K=4, nsamples=6, gridsize=2)
        between()
        params.cfg["nphotons"] = 1e9  # what norm_Y_I is made with, for callers that read it
        box = load(lambda: grouped, raw.probeGuess)
        between()
        model = trained_models(trained[2]["bundle"])["diffraction_to_obj"]
        patches = model.predict([box.X * model.intensity_scale, box.local_offsets])
        between()
        return reassemble_position(patches, box.global_offsets, M=20)

    np.testing.assert_array_equal(image(lambda: None), image(scramble))


def test_nothing_inside_reads_the_dictionary():
    """`cfg` of `ptycho.config.published` is used by its own module and by the compatibility names, nowhere else."""
    folders = (ROOT / "ptycho", ROOT / "ptycho" / "compat")
    allowed = {folder / f"{name}.py" for folder in folders for name in COMPATIBILITY_NAMES} | {Path(published.__file__)}
    found = []
    for path in sorted((ROOT / "ptycho").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = isinstance(node, ast.ImportFrom) and (
                (node.module or "").endswith("published") and any(alias.name == "cfg" for alias in node.names)
            )
            named = isinstance(node, ast.Attribute) and node.attr == "cfg"
            compatible = isinstance(node, ast.ImportFrom) and (
                node.module in {f"ptycho.{name}" for name in COMPATIBILITY_NAMES}
                or (node.module == "ptycho" and {alias.name for alias in node.names} & set(COMPATIBILITY_NAMES))
            )
            if (imported or named or compatible) and path not in allowed:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found
