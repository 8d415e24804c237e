"""Reconstruction by the workers of a Dask cluster: the result of one process, whatever happens to the workers."""

import operator
import os
import pickle
import signal
import sys

import numpy as np
import pytest

from ptycho.cli import main
from ptycho.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho.data import make_container, save_npz, save_scan
from ptycho.errors import BackendError, ConfigError, DataError, PtychoError
from ptycho.model.bundle import Bundle, save_bundle
from ptycho.model.pinn import initial_parameters
from ptycho.physics.photons import intensity_scale
from ptycho.workflows import cluster_sums, worker_pool
from ptycho.workflows.cluster import reconstruct_on_cluster
from ptycho.workflows.cluster_sums import sums_by
from ptycho.workflows.reconstruct import reconstruct
from ptycho.workflows.results import load_reconstruction
from ptycho.workflows.run import reconstruct_scan
from ptycho.workflows.scans import ScanOptions, open_scan, open_scan_for_others
from ptycho.workflows.worker_pool import connect_workers
from tests.support import simulated_scan

distributed = pytest.importorskip("distributed")

PHOTONS = 1e4
ROUNDING = 1e-5
"""Largest difference, in an object of about 1: batches of other patterns are convolved in another order."""


@pytest.fixture(scope="module")
def cluster():
    """Two processes for all tests of the module."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as local:
        yield local


@pytest.fixture(scope="module")
def scan_path(tmp_path_factory):
    """A scan of 18 patterns between the pixels, with bad ones, as HDF5."""
    scan = simulated_scan(18, 64, photons=PHOTONS)
    mask = np.ones((64, 64), bool)
    mask[10:12, 50] = False
    shift = np.random.default_rng(1).uniform(-0.5, 0.5, scan.positions.shape)
    path = tmp_path_factory.mktemp("scan") / "scan.cxi"
    save_scan(scan.replace(positions=scan.positions + shift, mask=mask), path)
    return path


def untrained(scan, gridsize=1, passes=2):
    model = ModelConfig(N=64, n_filters_scale=1, gridsize=gridsize, start_iterations=passes)
    params = initial_parameters(model, scan.probe, PHOTONS, seed=0)
    return Bundle(
        params, TrainingConfig(model=model, backend="numpy"), intensity_scale(PHOTONS, 64), PHOTONS, 64, {"loss": [1.0]}
    )


FEW = InferenceConfig(batch_size=4)


@pytest.mark.parametrize(
    ("gridsize", "passes", "region"),
    [
        (1, 2, None),
        (2, 2, "30:150,:140"),
        (1, None, None),
    ],
)
def test_the_result_is_that_of_one_process(cluster, scan_path, gridsize, passes, region):
    options = ScanOptions(region=region)
    scan = open_scan(scan_path, options)
    bundle = untrained(scan, gridsize, passes)
    told = []
    alone = reconstruct_scan(scan, bundle, FEW)
    shared = reconstruct_on_cluster(
        scan_path,
        bundle,
        FEW,
        cluster=cluster,
        options=options,
        counters=lambda label: lambda *counted: told.append((label, *counted)),
    )
    np.testing.assert_allclose(shared.object, alone.object, atol=ROUNDING)
    np.testing.assert_allclose(shared.weight, alone.weight, rtol=1e-6)
    assert np.abs(alone.object - 1).max() > 0.1
    assert shared.origin == alone.origin
    assert shared.provenance["data"] == alone.provenance["data"]
    for name in ("r_factor", "r_factor_estimate") if passes else ("r_factor",):
        assert shared.metrics[name] == pytest.approx(alone.metrics[name], rel=1e-5)
    groups = len(scan)
    assert told[-1] == ("reconstruct", groups, groups)
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})
    assert len(told) > 2


def test_a_scan_in_memory_is_sent(cluster, scan_path):
    scan = open_scan(scan_path)
    scan, bundle = scan.replace(patterns=np.asarray(scan.patterns)), untrained(scan)
    alone = reconstruct(scan, bundle, batch_size=4)
    with connect_workers(cluster) as workers:
        shared = reconstruct(scan, bundle, batch_size=4, workers=workers)
    np.testing.assert_allclose(shared.object, alone.object, atol=ROUNDING)


def test_patterns_do_not_travel(scan_path):
    """What a chunk is sent as names the file; it holds a part of the estimate and the positions."""
    scan = open_scan_for_others(scan_path)
    container = make_container(scan, at_most=0)
    groups = np.arange(3, 16)
    sent = pickle.dumps(worker_pool._part_of(container, scan, groups))
    assert len(sent) < scan.amplitude(groups).nbytes / 20
    arrived = pickle.loads(sent)
    np.testing.assert_array_equal(np.asarray(arrived.X), np.asarray(container.X[groups]))
    np.testing.assert_array_equal(arrived.positions, container.positions[groups])


def test_the_work_of_a_lost_worker_is_repeated(cluster, scan_path):
    scan = open_scan_for_others(scan_path)
    bundle = untrained(scan)
    alone = reconstruct(open_scan(scan_path), bundle, batch_size=2)
    with connect_workers(cluster) as workers:
        before = set(workers._client.run(os.getpid).values())
        victims = sorted(before)[:1]

        def kill(done, total):
            while victims:
                os.kill(victims.pop(), signal.SIGKILL)

        shared = reconstruct(scan, bundle, batch_size=2, progress=kill, workers=workers)
        workers._client.wait_for_workers(2, timeout=60)
        after = set(workers._client.run(os.getpid).values())
    assert len(before & after) == 1
    np.testing.assert_allclose(shared.object, alone.object, atol=ROUNDING)


def test_a_task_that_fails_is_tried_again(cluster, tmp_path, caplog):
    def fails_once(number):
        marker = tmp_path / str(number)
        if not marker.exists():
            marker.touch()
            raise OSError("the network drive is away")
        return number

    with connect_workers(cluster) as workers:
        runs = [[[0], [1], [2], [3]], [[4], [5], [6]]]
        assert list(sums_by(workers._client, fails_once, runs, tuple, operator.add)) == [0 + 1 + 2 + 3, 4 + 5 + 6]
        with pytest.raises(ZeroDivisionError):
            list(sums_by(workers._client, operator.truediv, [[[1, 0]] * 9], tuple, operator.add))
        assert list(sums_by(workers._client, abs, [[[-3]]], tuple, operator.add)) == [3]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_all_workers_lost_at_once(tmp_path, monkeypatch):
    """The one that there is dies and is started anew, under another address; or again and again."""
    monkeypatch.setattr(cluster_sums, "_LOOK_SECONDS", 0.3)

    def dies_once(number):
        marker = tmp_path / str(number)
        if number == 2 and not marker.exists():
            marker.touch()
            os._exit(1)
        return number

    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as alone,
        distributed.Client(alone) as client,
    ):
        assert list(sums_by(client, dies_once, [[[1], [2]], [[3], [4]]], tuple, operator.add)) == [3, 7]
        with pytest.raises(PtychoError, match="workers died of the same chunk"):
            list(sums_by(client, os._exit, [[[1]]], tuple, operator.add))


@pytest.mark.parametrize("change", ["gone", "another"])
def test_a_worker_without_the_file_is_named(cluster, scan_path, tmp_path, change):
    """The workers are on this machine, so the file goes after it was opened here."""
    path = tmp_path / "scan.npz"
    save_npz(simulated_scan(6, 64), path)
    scan = open_scan_for_others(path)
    path.unlink()
    if change == "another":
        save_npz(simulated_scan(7, 64), path)
    with (
        connect_workers(cluster) as workers,
        pytest.raises(DataError, match=r"On the worker tcp://127\.0\.0\.1") as refusal,
    ):
        reconstruct(scan, untrained(scan), workers=workers)
    assert str(path) in str(refusal.value)
    assert ("another file has this name here" in str(refusal.value)) == (change == "another")


def test_a_file_that_was_replaced_is_opened_anew(cluster, scan_path, tmp_path):
    path = tmp_path / "scan.cxi"
    for seed in (3, 4):
        path.unlink(missing_ok=True)
        save_scan(simulated_scan(20, 64, seed=seed), path)
        scan = open_scan_for_others(path)
        with connect_workers(cluster) as workers:
            (shared,) = sums_by(workers._client, _patterns, [[[scan.subset([2])]]], tuple, operator.add)
        np.testing.assert_array_equal(shared, scan.counts([2]))


def _patterns(scan):
    return scan.counts()


def test_no_scheduler_is_a_sentence(scan_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(worker_pool, "_CONNECT_SECONDS", 1)
    save_bundle(untrained(open_scan(scan_path)), tmp_path / "model")
    words = ["reconstruct", str(scan_path), str(tmp_path / "model"), "--out", str(tmp_path / "result"), "--dask"]
    assert main([*words, "tcp://127.0.0.1:9"]) == 2
    assert capsys.readouterr().err.startswith("ptycho: dask: no scheduler answers at tcp://127.0.0.1:9: start one with")
    with pytest.raises(ConfigError, match="no scheduler answers at no:address"), connect_workers("no:address"):
        pass
    assert not (tmp_path / "result").exists()


def test_what_has_to_be_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BackendError, match=r"pip install ptychopinn\[dask\]"), connect_workers():
        pass


def test_an_engine_is_refused(scan_path, capsys):
    assert main(["reconstruct", str(scan_path), "--engine", "rpie", "--dask"]) == 2
    assert "--dask is for the work of a network" in capsys.readouterr().err


def test_the_command(cluster, scan_path, tmp_path, capsys):
    scan = open_scan(scan_path)
    save_bundle(untrained(scan), tmp_path / "model")
    words = ["reconstruct", str(scan_path), str(tmp_path / "model"), "--n_subsample", "6", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "shared"), "--dask", cluster.scheduler_address]) == 0
    shared = load_reconstruction(tmp_path / "shared")
    alone = reconstruct_scan(scan, untrained(scan), InferenceConfig(n_subsample=6))
    np.testing.assert_allclose(shared.object, alone.object, atol=ROUNDING)
    assert shared.provenance["command"].endswith(f"--dask {cluster.scheduler_address}")
