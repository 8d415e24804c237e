"""ptychodus 1.7.0 drives the library: the functions of its own child processes, unchanged, with its own settings."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import pickle
import queue
from pathlib import Path

import numpy as np
import pytest

from ptycho import params
from ptycho.backends import get_trainer
from ptycho.errors import BackendError
from ptycho.model.bundle import load_bundle
from ptycho.physics import extract_patches
from tests.support import compiled_quickly

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ptychodus") is None, reason="ptychodus is not importable"),
    # ptychodus's many dependencies, which its packages import, warn of each other's deprecations.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PIXEL = 8e-9
NAMED = [
    ("pytorch", 1),
    ("pytorch", 2),
    pytest.param("tensorflow", 2, marks=pytest.mark.slow),
    pytest.param("jax", 1, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", autouse=True)
def _compiled_quickly():
    with compiled_quickly():
        yield


@pytest.fixture(scope="module")
def given(scan):
    """A scan as ptychodus hands it over: counts, two modes, a bad pixel, an object that it has only laid out."""
    from ptychodus.api.geometry import PixelGeometry
    from ptychodus.api.object import Object, compute_object_geometry
    from ptychodus.api.probe import ProbeSequence
    from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
    from ptychodus.api.product import Product, ProductMetadata
    from ptychodus.api.reconstruct import ReconstructInput

    pixel = PixelGeometry(width_m=PIXEL, height_m=PIXEL)
    places = [ProbePosition(i, x * PIXEL, y * PIXEL) for i, (y, x) in enumerate(scan.positions)]
    positions = ProbePositionSequence(places)
    probes = ProbeSequence(np.concatenate([scan.probe, 0.05 * np.roll(scan.probe, 9, -1)]), None, pixel)
    geometry = compute_object_geometry(positions, probes.get_geometry())
    canvas = np.ones((geometry.height_px, geometry.width_px), np.complex64)
    object_ = Object(canvas, pixel, geometry.get_center())
    metadata = ProductMetadata("scan", "", 1.0, 8000.0, 1e5, 0.0, 0.0, 0.0)
    bad = np.zeros((scan.N, scan.N), bool)
    bad[3, 5] = True
    counts = np.asarray(scan.patterns).astype(np.uint16)
    return ReconstructInput(counts, bad, Product(metadata, positions, probes, object_, []))


def likeness(found, scan):
    """How much a product's object, read by ptychodus at its positions, is the true one there."""
    from ptychodus.api.interpolate import BarycentricArrayInterpolator

    object_, positions = found.product.object_, found.product.probe_positions
    rows = object_.get_geometry().map_probe_positions_to_object_y_px(positions)
    columns = object_.get_geometry().map_probe_positions_to_object_x_px(positions)
    view = BarycentricArrayInterpolator(object_.get_layer(0))
    seen = np.stack([view.get_patch(x, y, 16, 16) for y, x in zip(rows, columns, strict=True)])
    true = extract_patches(scan.object, scan.positions - np.asarray(scan.object_origin), 16)
    return abs(np.vdot(seen, true)) / (np.linalg.norm(seen) * np.linalg.norm(true))


def in_real_numbers(given):
    """The same counts as a detector's file with real numbers has them."""
    return dataclasses.replace(given, diffraction_patterns=given.diffraction_patterns.astype(np.float32))


def drained(messages):
    """What a child has told its parent, by tag."""
    found = {}
    while not messages.empty():
        tag, value = messages.get()
        found[tag] = pickle.loads(value) if isinstance(value, bytes) else Path(value)
    return found


def named_library(gridsize):
    """ptychodus's settings and its reconstructor for the TensorFlow-named side."""
    from ptychodus.api.settings import SettingsRegistry
    from ptychodus.model.ptychopinn.core import PtychoPINNReconstructorLibrary

    library = PtychoPINNReconstructorLibrary(SettingsRegistry(), False)
    library.model_settings.gridsize.set_value(gridsize)
    library.model_settings.n_filters_scale.set_value(1)
    library.training_settings.nepochs.set_value(1)
    return library, next(iter(library))


def torch_library(gridsize):
    """ptychodus's settings and its reconstructor for the PyTorch side."""
    from ptychodus.api.settings import SettingsRegistry
    from ptychodus.model.ptychopinn_torch.core import PtychoPINNTorchReconstructorLibrary

    library = PtychoPINNTorchReconstructorLibrary(SettingsRegistry(), False)
    library.data_settings.model_size.set_value(64)
    library.data_settings.num_channels.set_value(gridsize**2)
    library.data_settings.grid_size_x.set_value(gridsize)
    library.data_settings.grid_size_y.set_value(gridsize)
    library.model_settings.num_filters_scale.set_value(1)
    library.training_settings.epochs.set_value(2)
    return library, next(iter(library))


def folders(place):
    for name in ("in", "out"):
        (place / name).mkdir()
    return place / "in", place / "out"


@pytest.mark.parametrize(("backend", "gridsize"), NAMED)
def test_the_named_side(given, scan, tmp_path, backend, gridsize, caplog):
    """Train, save through ptychodus, load what it saved, reconstruct every pattern."""
    from ptychodus.model.ptychopinn._subprocess import run_reconstruct, run_train

    try:
        get_trainer(backend)
    except BackendError:
        pytest.skip(f"{backend} is not installed")
    source, target = folders(tmp_path)
    _, reconstructor = named_library(gridsize)
    for name in ("train_data.npz", "test_data.npz"):
        reconstructor.export_training_data(source / name, given)
    payload = pickle.loads(pickle.dumps(reconstructor._build_train_payload(source, target)))
    payload.training_config.backend = backend
    messages = queue.Queue()
    run_train(payload, messages)
    told = drained(messages)
    assert told["model_saved"] == target / "wts.h5.zip"
    bundle = load_bundle(target)
    assert (bundle.config.backend, bundle.config.model.gridsize, bundle.measurement) == (backend, gridsize, "counts")
    assert bundle.probe.shape == (2, 64, 64)
    reconstructor.load_model_from_file(told["model_saved"])
    reconstructor.save_model(tmp_path / "mine.zip")
    params.cfg.pop("measurement")
    for place, patterns in ((told["model_saved"], given), (tmp_path / "mine.zip", in_real_numbers(given))):
        run_reconstruct(reconstructor._build_reconstruct_payload(patterns, place), messages)
        assert likeness(drained(messages)["output"], scan) > (0.998 if gridsize == 1 else 0.98)
    assert "diff3d is float32 and taken for counts, which the model" in caplog.text


@pytest.mark.parametrize("gridsize", [1, 2])
def test_the_torch_side(given, scan, tmp_path, gridsize, caplog):
    """The same; a shift by a pixel would not be like enough, so the object lies where ptychodus says."""
    from ptychodus.model.ptychopinn_torch._subprocess import run_reconstruct, run_train

    caplog.set_level(logging.INFO)
    source, target = folders(tmp_path)
    _, reconstructor = torch_library(gridsize)
    reconstructor.export_training_data(source / "any_name.npz", given)
    messages = queue.Queue()
    run_train(pickle.loads(pickle.dumps(reconstructor._build_train_payload(source, target))), messages)
    told = drained(messages)
    output = told["train_output"]
    for losses in (output.training_loss, output.validation_loss):
        assert [loss.epoch for loss in losses] == [0, 1]
        assert np.isfinite([loss.value for loss in losses]).all()
    assert output.progress == 2
    checkpoint = told["model_saved"]
    assert checkpoint.parent.parent.parent == target
    assert [loss.value for loss in output.training_loss] == load_bundle(checkpoint.parents[1]).history["loss"]
    assert "any_name.npz holds counts of uint16" in caplog.text
    assert "without effect" not in caplog.text  # ptychodus's usual settings all mean something here
    reconstructor.load_model_from_file(checkpoint)
    reconstructor.save_model(tmp_path / "mine.ckpt")
    payload = reconstructor._build_reconstruct_payload(in_real_numbers(given), tmp_path / "mine.ckpt")
    run_reconstruct(payload, messages)
    found = drained(messages)["output"]
    assert "The patterns are float32 and taken for counts by the model's training" in caplog.text
    assert (found.progress, found.product.object_.dtype) == (1, np.complex64)
    assert likeness(found, scan) > 0.998


@pytest.mark.slow
@pytest.mark.parametrize("library", [named_library, torch_library])
def test_in_its_own_processes(given, scan, tmp_path, library):
    """From ptychodus's parent process to its children and back."""
    source, target = folders(tmp_path)
    _, reconstructor = library(1)
    for name in ("train_data.npz", "test_data.npz"):
        reconstructor.export_training_data(source / name, given)
    assert len(list(reconstructor.train(source, target))) == 1
    reconstructor.save_model(tmp_path / f"mine{reconstructor.get_model_file_extension()}")
    (found,) = reconstructor.reconstruct(given)
    assert likeness(found, scan) > 0.998


def test_every_setting_of_the_torch_side_is_known(scan):
    """ptychodus builds the five settings objects with each of its parameters changed."""
    from ptychodus.model.ptychopinn_torch.reconstructor import _build_configs

    library, _ = torch_library(2)
    settings = (library.data_settings, library.model_settings, library.training_settings, library.inference_settings)
    for parameter in (each for group in settings for each in group._group.parameters().values()):
        value = parameter.get_value()
        parameter.set_value(not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value)
    assert [type(each).__module__ for each in _build_configs("Supervised", *settings)] == [
        "ptycho.config.torch_fields"
    ] * 5
