"""Names of files that are not UTF-8, as a command line may hold them: they work, in every file that names them."""

import os

import pytest

from ptycho.cli import main
from ptycho.config import TrainingConfig, save_config
from ptycho.data import save_npz
from ptycho.workflows import report, results
from ptycho.workflows.results import load_reconstruction
from tests.support import simulated_scan

NAMES = [b"a\xff", b"\xed\xa0\x80 z"]


def is_allowed(folder, name):
    """Whether the file system has names of any bytes."""
    try:
        os.mkdir(os.path.join(os.fsencode(folder), name))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_scan_and_output_folder(name, tmp_path, monkeypatch, capsys):
    if not is_allowed(tmp_path, name):
        pytest.skip("this file system has no such names")
    monkeypatch.chdir(tmp_path)
    pictures = [each for each in results.RESULT_FILES if each.endswith((".png", ".html"))]
    monkeypatch.setattr(report, "write_pictures", lambda _, out: [(out / each).write_text(each) for each in pictures])
    scan, out = f"{os.fsdecode(name)}.npz", os.fsdecode(name)
    save_npz(simulated_scan(M=40, N=32, seed=1), scan)
    assert main(["reconstruct", scan, "--epochs", "1", "--out", out, "--quiet"]) == 0
    assert os.fsdecode(name) in load_reconstruction(out).provenance["command"]
    assert main(["refine", out, "--epochs", "1", "--out", f"{out} 2", "--quiet"]) == 0  # finds the scan by its name
    assert main(["convert", scan, f"{out}.cxi", "--wavelength", "1e-10", "--pixel_size", "1e-8"]) == 0
    assert main(["reconstruct", scan, "--epochs", "2", "--out", out]) == 2
    said = capsys.readouterr()
    assert (said.out + said.err).isascii()
    save_config(TrainingConfig(output_dir=out, train_data_file=scan), "config.yaml")
