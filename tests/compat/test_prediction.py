"""``model.predict`` as PtychoPINN's callers use it: every backend, what it knows of the scan, what it refuses."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from ptycho.backends import get_backend
from ptycho.data import make_container
from ptycho.errors import BackendError, ConfigError, DataError
from ptycho.loader import load
from ptycho.physics import extract_patches
from ptycho.tf_helper import reassemble_position
from ptycho.workflows.components import train_cdi_model
from ptycho.workflows.trained_model import trained_models
from tests.compat.conftest import small

BACKENDS = [("numpy", 1), ("numpy", 2), ("pytorch", 1), ("pytorch", 2), ("tensorflow", 2), ("jax", 2)]


def container(raw, gridsize, nsamples=8):
    return load(lambda: raw.generate_grouped_data(64, K=4, nsamples=nsamples, gridsize=gridsize), raw.probeGuess)


def model_of(trained, gridsize):
    return trained[gridsize]["models"]["diffraction_to_obj"]


def agreement(found, true):
    """Correlation of two complex stacks whatever their common phase and scale."""
    return abs(np.vdot(found, true)) / (np.linalg.norm(found) * np.linalg.norm(true))


@pytest.mark.parametrize(("name", "gridsize"), BACKENDS)
def test_every_backend_predicts_the_same(trained, raw, name, gridsize):
    try:
        get_backend(name)
    except (BackendError, ImportError):
        pytest.skip(f"{name} is not installed")
    box, bundle = container(raw, gridsize, 4), trained[gridsize]["bundle"]
    inputs = [box.X * bundle.intensity_scale, box.local_offsets]
    found = trained_models(bundle, name)["diffraction_to_obj"].predict(inputs)
    assert found.shape == (4, 64, 64, 1)
    assert found.dtype == np.complex64
    reference = trained_models(bundle, "pytorch")["diffraction_to_obj"].predict(inputs)
    np.testing.assert_allclose(found, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_what_is_predicted_is_the_object(trained, raw, scan, gridsize):
    box, model = container(raw, gridsize), model_of(trained, gridsize)
    found = model.predict([box.X * trained[gridsize]["intensity_scale"], box.local_offsets])[..., 0]
    true = extract_patches(scan.object, box.global_offsets[:, 0, ::-1, 0], 64)
    centre = slice(20, 44)
    assert agreement(found[:, centre, centre], true[:, centre, centre]) > 0.97
    flat = agreement(np.ones_like(true)[:, centre, centre], true[:, centre, centre])
    assert agreement(found[:, centre, centre], true[:, centre, centre]) > flat + 0.1 * (1 - flat)


def test_the_same_scan_however_it_is_told(trained, raw):
    """From the offsets' memory, from the container, and put together from the global offsets."""
    box, model = container(raw, 2, nsamples=60), model_of(trained, 2)
    scaled = box.X * model.intensity_scale
    known = model.predict([scaled, box.local_offsets])
    np.testing.assert_array_equal(model.predict(box), known)
    np.testing.assert_array_equal(model([scaled, box.local_offsets, box.global_offsets]), known)
    assert set(box.nn_indices.ravel()) == set(range(len(raw.scan)))  # so the groups show the whole scan
    plain = model.predict([scaled, np.array(box.local_offsets), box.global_offsets])
    assert agreement(plain, known) > 0.9995  # the order of the patterns is another, and rounding tells


def test_containers_of_a_training_predict_too(trained, scan):
    """One group for every pattern: what they show is the whole scan."""
    model, every = model_of(trained, 2), make_container(scan, 2)
    known = model.predict([every.X * model.intensity_scale, every.local_offsets])
    np.testing.assert_array_equal(model.predict(every), known)
    true = extract_patches(scan.object, every.centres, 64)[:, 20:44, 20:44]
    assert agreement(known[:, 20:44, 20:44, 0], true) > 0.97
    assert model.predict(trained[2]["train_container"]).shape == (16, 64, 64, 1)


def test_the_result_does_not_depend_on_the_batches(trained, raw):
    box, model = container(raw, 2), model_of(trained, 2)
    one = model.predict(box, batch_size=3, verbose=1)
    np.testing.assert_allclose(one, model.predict(box), rtol=1e-4, atol=1e-5)


def test_patterns_alone_start_from_a_flat_object_and_a_warning_says_so(trained, raw, caplog):
    caplog.set_level(logging.WARNING, "ptycho.workflows.trained_model")
    box, model = container(raw, 1), model_of(trained, 1)
    scaled = box.X * model.intensity_scale
    known = model.predict([scaled, box.local_offsets])
    assert not caplog.records
    alone = model.predict([scaled, np.zeros((8, 1, 2, 1))])
    assert "predict knows the patterns but not where they lie" in caplog.text
    assert alone.shape == known.shape
    assert np.isfinite(alone).all()
    assert np.abs(alone - known).max() > 0.1


@pytest.mark.parametrize("passes", [None, 0])
def test_models_that_need_no_scan_do_not_ask_for_one(scan, raw, caplog, passes):
    pytest.importorskip("torch")
    model = train_cdi_model(scan, None, small(start_iterations=passes))["models"]["diffraction_to_obj"]
    box = container(raw, 1)
    alone = model.predict([box.X * model.intensity_scale, np.array(box.local_offsets)])
    np.testing.assert_allclose(model.predict(box), alone, rtol=1e-4, atol=1e-5)
    assert "not where they lie" not in caplog.text


def test_one_patch_for_a_group(scan, raw):
    pytest.importorskip("torch")
    config = small(2, object_big=False, start_iterations=None)
    model = train_cdi_model(scan, None, config)["models"]["diffraction_to_obj"]
    assert model.predict(container(raw, 2)).shape == (8, 64, 64, 1)


def test_a_reconstruction_as_ptychodus_makes_it(trained, raw, scan):
    box, model = container(raw, 1, nsamples=len(scan)), model_of(trained, 1)
    patches = model.predict([box.X * trained[1]["intensity_scale"], box.local_offsets])
    image = reassemble_position(patches, box.global_offsets, M=20)[..., 0]
    half = image.shape[0] // 2
    mean = box.global_offsets.mean(axis=0).ravel()[::-1]
    rows, columns = np.nonzero(np.abs(image) > 0)
    true = scan.object[rows + round(mean[0]) - half, columns + round(mean[1]) - half]
    assert agreement(image[rows, columns], true) > 0.97


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda x, o: x, DataError, "inputs: ndarray given; expected"),
        (lambda x, o: [x], DataError, "inputs: list given"),
        (
            lambda x, o: [x[:, :32, :32], o],
            ConfigError,
            r"X has shape \(8, 32, 32, 1\); this model takes \(B, 64, 64, 1\)",
        ),
        (lambda x, o: [x[..., 0], o], ConfigError, r"X has shape \(8, 64, 64\)"),
        (lambda x, o: [x, o[:3]], DataError, r"local_offsets has shape \(3, 1, 2, 1\); expected \(8, 1, 2, 1\)"),
        (lambda x, o: [x, o, o[:, 0]], DataError, r"global_offsets has shape \(8, 2, 1\)"),
    ],
)
def test_what_does_not_belong_together_is_refused(trained, raw, change, kind, message):
    box = container(raw, 1)
    with pytest.raises(kind, match=message):
        model_of(trained, 1).predict(change(box.X, np.array(box.local_offsets)))
