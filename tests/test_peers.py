"""Peers get the work and are judged by one evaluator, whichever way they read the object, or say why they are not."""

import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.__main__ import PeerError, reconstructed
from benchmarks.peers.environments import PEERS
from benchmarks.peers.work import Work, judged, measured_work, predicted
from ptycho.data import save_npz
from ptycho.errors import DataError
from ptycho.physics import focused_probe, picture_object, raster_positions, simulate

N = 32
ROOT = Path(__file__).parent.parent
WAYS = ("bilinear", "integer", "patch", "probe")


@pytest.fixture(scope="module")
def work():
    image = picture_object("camera", (80, 80), (0.7, 1.0), (-0.8, 0.8), phase_image="coins")
    scan = simulate(image, focused_probe(N), raster_positions((80, 80), N, 6.0), 1e5, 3)
    scan = scan.replace(positions=scan.positions + 5.0, object_origin=(5.0, 5.0))
    return Work("small", scan, scan.probe, scan)


def truth(work, **changes):
    scan = work.truth
    return {"object": scan.object, "origin": scan.object_origin, "probe": scan.probe, "between": "bilinear", **changes}


@pytest.mark.parametrize("between", WAYS)
def test_the_truth_is_met_whichever_way_it_is_read(work, between):
    found = judged(work, truth(work, between=between))
    assert found["own"] < 0.3  # photon noise, and what lies between the pixels
    assert found["r"] == judged(work, truth(work))["r"]
    assert found["phase"] < 1e-3
    assert found["frc"] == pytest.approx(1.0, abs=1e-6)


def test_a_unit_and_a_phase_are_nobodys_fault(work):
    found = judged(work, truth(work, object=work.truth.object * 3j, probe=work.truth.probe * 0.2))
    assert found == pytest.approx(judged(work, truth(work)), abs=1e-5)


def test_a_wrong_origin_is_seen(work):
    assert judged(work, truth(work, origin=(6.0, 5.0)))["r"] > 1.5 * judged(work, truth(work))["r"]


@pytest.mark.parametrize("between", ["patch", "probe"])
def test_shifts_go_where_the_position_goes(between):
    rows, cols = np.meshgrid(np.arange(64), np.arange(64), indexing="ij")
    smooth = (1.0 + 0.5 * np.exp(1j * 2 * np.pi * (2 * rows + 3 * cols) / 64)).astype(np.complex64)
    probe = focused_probe(N)[None].astype(np.complex64)
    at = np.array([[30.4, 31.3]])
    near, exact = predicted(smooth, probe, at, "bilinear"), predicted(smooth, probe, at, between)
    away = predicted(smooth, probe, 2 * np.round(at) - at, between)
    assert np.linalg.norm(exact - near) < 0.3 * np.linalg.norm(away - near)


def test_a_program_that_fails_says_why(work, tmp_path):
    with pytest.raises(PeerError, match="not installed"):
        reconstructed(work, tmp_path / "python", "phaser", "epie", 1)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho started >&2\necho 'no beam today' >&2\nexit 3\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(PeerError, match="no beam today"):
        reconstructed(work, python, "phaser", "epie", 1)


def test_every_peer_has_an_adapter():
    adapters = ROOT / "benchmarks" / "peers" / "adapters"
    assert {path.name for path in adapters.glob("with_*.py")} == {
        f"with_{name}.py" for name in ("ptycho", *(peer.name for peer in PEERS))
    }


def test_ours_as_a_peer(work):
    found = reconstructed(work, Path(sys.executable), "ptycho", "rpie", 4)
    assert len(found["epochs"]) == 3
    assert min(found["first"], found["started"], found["peak"], *found["epochs"]) > 0
    assert judged(work, found)["r"] == pytest.approx(judged(work, found)["own"])
    assert judged(work, found)["frc"] > 0.3


def test_a_scan_that_not_all_can_take_is_refused(work, tmp_path):
    save_npz(work.scan.replace(probe=None), tmp_path / "scan.npz")
    with pytest.raises(DataError, match="expected a scan with a probe"):
        measured_work(tmp_path / "scan.npz")


def test_without_any_peer_it_says_how(tmp_path):
    words = [sys.executable, "-m", "benchmarks.peers", "--where", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("No peer is installed; `python -m benchmarks.peers --install`")
