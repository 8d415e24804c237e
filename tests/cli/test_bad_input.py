"""Bad input through the real command: one clear sentence, exit code 2, nothing half-written."""

import os
import sys

import numpy as np
import pytest

READERS = [("inspect",), ("run",)]


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("key", ["diff3d", "xcoords", "ycoords"])
def test_missing_key(refused, write_npz, command, key):
    assert key in refused(*command, write_npz(without=key))


@pytest.mark.parametrize("command", READERS)
def test_wrong_rank(refused, write_npz, command):
    assert "rank 2" in refused(*command, write_npz(diff3d=np.ones((64, 64), np.float32)))


@pytest.mark.parametrize("command", READERS)
def test_oblong_patterns(refused, write_npz, command):
    sentence = refused(*command, write_npz(diff3d=np.ones((9, 64, 32), np.float32)))
    assert "64x32 given, square patterns expected" in sentence


@pytest.mark.parametrize("command", READERS)
def test_coordinates_that_do_not_match_the_patterns(refused, write_npz, command):
    path = write_npz(xcoords=np.zeros(8), ycoords=np.zeros(8))
    sentence = refused(*command, path)
    assert "8" in sentence
    assert "9" in sentence
    assert "xcoords" in refused(*command, write_npz(xcoords=np.zeros(8)))


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_values_that_are_no_measurement(refused, write_npz, command, value):
    patterns = np.ones((9, 64, 64), np.float32)
    patterns[3, 5, 6] = value
    sentence = refused(*command, write_npz(diff3d=patterns))
    assert "patterns" in sentence
    assert ("negative" if value == -1 else "NaN") in sentence or "finite" in sentence


def test_negative_integer_counts(refused, write_npz):
    patterns = np.ones((9, 64, 64), np.int32)
    patterns[3, 5, 6] = -4
    assert "negative" in refused("inspect", write_npz(diff3d=patterns))


@pytest.mark.parametrize("name", ["xcoords", "probeGuess"])
def test_values_that_are_no_numbers_elsewhere(refused, write_npz, name):
    values = np.full((9,) if name == "xcoords" else (64, 64), np.nan)
    assert ("positions" if name == "xcoords" else "probe") in refused("inspect", write_npz(**{name: values}))


def test_pattern_size_without_network(refused, write_npz):
    sentence = refused("run", write_npz(size=96))
    assert "96 x 96" in sentence
    assert "64, 128, 256" in sentence
    assert "--crop 64" in sentence
    assert "N = 96" in refused("run", write_npz(size=96), "--N", "96")


def test_pattern_size_of_another_network(refused, write_npz):
    assert "use --crop 64 or --N 128" in refused("train", write_npz(size=128), "--N", "64")


def test_fewer_points_than_a_group(refused, write_npz):
    pytest.importorskip("lightning")  # the backend that trains by default
    sentence = refused("run", write_npz(count=3), "--gridsize", "2")
    assert "4 scan points" in sentence
    assert "only 3" in sentence


def test_fewer_neighbours_than_a_group(refused, write_npz):
    assert "neighbor_count = 2" in refused("run", write_npz(), "--gridsize", "2", "--neighbor_count", "2")


def unreadable(tmp_path, kind):
    path = tmp_path / "scan.npz"
    if kind == "absent":
        return path
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(os.urandom(4096))
    elif kind == "cut short":
        np.savez(path, diff3d=np.ones((4, 64, 64)), xcoords=np.ones(4), ycoords=np.ones(4))
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "pickled":
        np.savez(path, diff3d=np.array([{"a": 1}], dtype=object), xcoords=np.ones(1), ycoords=np.ones(1))
    elif kind == "text":
        path = tmp_path / "scan.txt"
        path.write_text("1 2 3\n")
    return path


@pytest.mark.parametrize("kind", ["absent", "folder", "empty", "garbage", "cut short", "pickled", "text"])
def test_unreadable_file(refused, tmp_path, kind):
    path = unreadable(tmp_path, kind)
    assert path.name in refused("inspect", path)
    assert path.name in refused("run", path, "--out", "result")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(refused, scan_path, tmp_path):
    path = tmp_path / "forbidden.npz"
    path.write_bytes(scan_path.read_bytes())
    path.chmod(0)
    assert "cannot be read: Permission denied" in refused("inspect", path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian", "x"], "Unknown command trian: did you mean train?"),
        (["xyzzy"], "Unknown command xyzzy: choose one of simulate,"),
        (["run", "x.npz", "--nepoch", "3"], "Unknown flag --nepoch: did you mean --nepochs?"),
        (["inspect", "x.npz", "--xyzzy"], "Unknown flag --xyzzy: 'ptycho inspect --help' lists"),
        (["inspect", "x.npz", "y.npz"], "'y.npz' is one argument too many"),
        (["run", "x.npz", "--nepochs"], "--nepochs needs a value"),
        (["run", "x.npz", "--nepochs", "many"], "nepochs = many is not possible: expected an integer"),
        (["run", "x.npz", "--N", "100"], "N = 100 is not possible: expected one of 64, 128, 256"),
        (["run", "x.npz", "--probe_trainable=perhaps"], "expected true or false"),
        (["run", "x.npz", "--nll_weight", "0"], "nll_weight = 0"),
        (["run"], "'ptycho run' needs SCAN"),
        (["reconstruct", "x.npz"], "'ptycho reconstruct' needs MODEL_PATH"),
        (["evaluate", "x"], "'ptycho evaluate' needs TRUTH"),
        (["simulate", "--N", "128", "--size", "100"], "size = 100 is not possible"),
        (["simulate", "--object", "stripes"], "object = stripes is not possible: expected one of lines"),
        (["run", "x.npz", "--config", "absent.yaml"], "absent.yaml cannot be read"),
    ],
)
def test_words_that_mean_nothing(refused, words, sentence):
    assert sentence in refused(*words)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nepoch: 3\n", "settings.yaml has the unknown key nepoch: did you mean nepochs?"),
        ("model: {N: 100}\n", "N = 100 is not possible"),
        ("nepochs: [1, 2]\n", "nepochs = [1, 2] is not possible"),
        ("nepochs: 3: 4\n", "settings.yaml is not valid YAML at line 1"),
        ("- nepochs\n", "settings.yaml holds a list"),
    ],
)
def test_configuration_that_means_nothing(refused, tmp_path, text, sentence):
    (tmp_path / "settings.yaml").write_text(text)
    assert sentence in refused("run", "x.npz", "--config", tmp_path / "settings.yaml")


def test_backends_that_cannot_train(refused, scan_path):
    assert "'abacus' is not available; choose one of: numpy, " in refused("run", scan_path, "--backend", "abacus")
    assert "numpy backend cannot train" in refused("train", scan_path, "--backend", "numpy")


@pytest.mark.parametrize("command", [("train",), ("run",), ("demo",)])
def test_absent_framework(refused, scan_path, tmp_path, command):
    """A torch that cannot be imported is as good as none."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('No module named torch')\n")
    words = command if command == ("demo",) else (*command, scan_path)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    sentence = refused(*words, env={"PYTHONPATH": path + os.pathsep + os.pathsep.join(sys.path)})
    assert "pip install ptychopinn[torch]" in sentence


def test_result_that_is_there_already(ptycho, refused):
    (ptycho.folder / "out").mkdir()
    (ptycho.folder / "out" / "scan.npz").write_text("precious")
    assert "scan.npz exists already" in refused("simulate", "--out", "out")
    assert (ptycho.folder / "out" / "scan.npz").read_text() == "precious"


def test_folder_that_cannot_be(ptycho, refused):
    (ptycho.folder / "file").write_text("")
    assert "cannot be written to: Not a directory" in refused("simulate", "--out", "file/deeper")


def limited_files(size=65536):
    """No file may grow beyond so many bytes in a process: writing more fails as on a full disk."""
    return f"signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_full_disk(refused):
    sentence = refused("simulate", "--out", "out", "--n_positions", "50", preparation=limited_files())
    assert "scan.npz cannot be written" in sentence


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_full_disk_keeps_the_old_result(ptycho, refused):
    (ptycho.folder / "out").mkdir()
    (ptycho.folder / "out" / "scan.npz").write_text("precious")
    refused("simulate", "--out", "out", "--n_positions", "50", "--force", preparation=limited_files())
    assert (ptycho.folder / "out" / "scan.npz").read_text() == "precious"
