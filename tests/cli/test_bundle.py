"""`ptycho bundle`: an archive of PtychoPINN comes in, is looked at, reconstructs, and goes out again."""

import json

import pytest

pytest.importorskip("torch")

from ptycho.data import load_scan
from ptycho.model.bundle import load_bundle
from tests.model.test_import_torch import archive, network, saved


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return archive(tmp_path_factory.mktemp("old") / "wts.h5.zip", saved(network().state_dict()))


def test_from_the_archive_to_a_result(ptycho, old, scan_path):
    assert ptycho("bundle", "info", old).out.splitlines()[1] == "kind archive of PtychoPINN"
    done = ptycho("bundle", "import", old, "--probe", scan_path, "--out", "model")
    assert (done.code, done.err) == (0, "")
    assert done.figure("saved") == "model/wts.h5.zip"
    assert sorted(path.name for path in (ptycho.folder / "model").iterdir()) == [
        ".ptychopinn.json",
        "config.yaml",
        "wts.h5.zip",
    ]
    probe = load_scan(scan_path).probe
    assert load_bundle(ptycho.folder / "model").params["probe/real"].shape == probe.shape

    shown = json.loads(ptycho("bundle", "info", "model", "--json").out)
    assert shown["imported_from"]["framework"] == "pytorch"
    assert shown["model"]["start_iterations"] is None

    done = ptycho("reconstruct", scan_path, "model", "--backend", "numpy", "--out", "result")
    assert done.code == 0, done.err
    assert 0 < float(done.figure("R-factor")) < 2

    done = ptycho("bundle", "export", "model", "--to", "torch", "--out", "model.pt2")
    assert (done.code, done.figure("saved")) == (0, "model.pt2")


def test_what_is_refused(refused, old, scan_path, tmp_path):
    assert "holds no probe; name a scan whose probe is to be used with --probe FILE" in refused("bundle", "import", old)
    assert "'ptycho bundle import' needs ARCHIVE" in refused("bundle", "import")
    assert "Unknown command bundle imprt: did you mean bundle import?" in refused("bundle", "imprt", old)
    assert "ptycho bundle import" in refused("reconstruct", scan_path, old)
    assert "to = none is not possible" in refused("bundle", "export", old).lower()


def test_its_own_help(ptycho):
    for words in (("bundle",), ("bundle", "--help"), ("help", "bundle")):
        out = ptycho(*words).out
        assert "usage: ptycho bundle COMMAND" in out
        assert "bundle export" in out
