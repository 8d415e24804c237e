"""Counts or amplitudes: who decides, in what order, and what a bundle remembers of it."""

from __future__ import annotations

import json
import logging
import zipfile

import numpy as np
import pytest

from ptycho import params
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.errors import DataError
from ptycho.loader import PtychoDataContainer
from ptycho.model.bundle import Bundle, load_bundle, save_bundle
from ptycho.model.pinn import initial_parameters
from ptycho.raw_data import RawData
from ptycho.workflows import run
from ptycho.workflows.components import load_inference_bundle
from ptycho.workflows.run import open_bundle, train_scan
from tests.support import simulated_scan

N = 16


@pytest.fixture(scope="module")
def scan():
    return simulated_scan(30, N)


def arrays(scan, dtype):
    return (scan.positions[:, 1], scan.positions[:, 0], scan.counts().astype(dtype), scan.probe, np.zeros(30, int))


def bundle(measurement):
    config = TrainingConfig(model=ModelConfig(n_filters_scale=1))
    weights = initial_parameters(config.model, np.ones((1, 64, 64), np.complex64), 1.0, seed=0)
    return Bundle(weights, config, 1.0, 1.0, 64, measurement=measurement)


@pytest.mark.parametrize("measurement", ["counts", "amplitude", None])
def test_a_bundle_remembers(tmp_path, measurement):
    save_bundle(bundle(measurement), tmp_path)
    assert load_bundle(tmp_path).measurement == measurement
    with zipfile.ZipFile(tmp_path / "wts.h5.zip") as archive:
        assert ("measurement" in json.loads(archive.read("units.json"))) == (measurement is not None)
    params.cfg["measurement"] = "of another model"
    open_bundle(tmp_path)
    assert params.get("measurement") == measurement


def test_a_bundle_that_remembers_nonsense_is_refused(tmp_path):
    save_bundle(bundle("photons"), tmp_path)
    with pytest.raises(DataError, match="measurement 'photons'"):
        load_bundle(tmp_path)


def test_an_unpacked_bundle_is_opened(tmp_path):
    """As ptychodus unpacks the copy that it made of ``wts.h5.zip`` under another name."""
    save_bundle(bundle("counts"), tmp_path)
    with zipfile.ZipFile(tmp_path / "wts.h5.zip") as archive:
        archive.extractall(tmp_path / "mine")
    assert load_inference_bundle(tmp_path / "mine")[0].measurement == "counts"
    (tmp_path / "mine" / "units.json").write_text("{}")
    with pytest.raises(DataError, match=r"units\.json"):
        load_inference_bundle(tmp_path / "mine")


def test_a_run_says_what_it_learns_from(scan, monkeypatch):
    monkeypatch.setattr(run, "train", lambda *_, **__: None)
    train_scan(scan, TrainingConfig())
    assert params.get("measurement") == "counts"


@pytest.mark.parametrize(
    ("known", "dtype", "stated", "expected"),
    [
        (None, "float32", None, "amplitude"),
        ("counts", "float32", None, "counts"),
        ("amplitude", "float64", None, "amplitude"),
        ("counts", "float32", "amplitude", "amplitude"),
        ("amplitude", "uint16", None, "counts"),
        ("amplitude", "uint16", "amplitude", "amplitude"),
        (None, "int32", None, "counts"),
    ],
)
def test_who_decides(scan, known, dtype, stated, expected, caplog):
    caplog.set_level(logging.INFO)
    params.cfg["measurement"] = known
    raw = RawData.from_coords_without_pc(*arrays(scan, dtype), measurement=stated)
    assert raw.scan.measurement == expected
    decided = stated is None
    assert (f"diff3d is {dtype} and taken for {expected}" in caplog.text) == decided
    overruled = decided and known == "counts" and dtype == "float32"
    assert ("which the model of this process was trained on" in caplog.text) == (
        decided and known is not None and "float" in dtype
    )
    assert any(r.levelno == logging.WARNING and "the model of this" in r.message for r in caplog.records) == overruled


def test_a_scan_that_says_it_is_not_asked(scan):
    params.cfg["measurement"] = "counts"
    amplitudes = scan.replace(patterns=scan.amplitude(), measurement="amplitude")
    assert RawData.from_scan(amplitudes).scan.measurement == "amplitude"


def test_lists_are_patterns_too(scan):
    params.cfg["measurement"] = "counts"
    columns, rows, patterns, probe, index = arrays(scan, "float64")
    raw = RawData.from_coords_without_pc(columns, rows, patterns.tolist(), probe, index)
    assert raw.scan.measurement == "counts"


@pytest.mark.parametrize("gridsize", [1, 2])
def test_one_sample_is_one_from_every_pattern(scan, gridsize):
    """ptychodus's number of samples is 1 unless it is changed, and means every pattern."""
    raw = RawData.from_scan(scan)
    one = raw.generate_grouped_data(N, K=7, nsamples=1, gridsize=gridsize)["nn_indices"]
    assert (len(one), set(one.ravel())) == (30, set(range(30)))
    assert len(raw.generate_grouped_data(N, K=7, nsamples=2, gridsize=gridsize)["nn_indices"]) == 2
    first = raw.generate_grouped_data(N, K=7, nsamples=1, gridsize=gridsize, sequential_sampling=True)["nn_indices"]
    assert len(first) == 1
    params.cfg["gridsize"] = gridsize
    assert len(PtychoDataContainer.from_raw_data_without_pc(*arrays(scan, "uint16"))) == 30
