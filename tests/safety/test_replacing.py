"""What may be replaced or removed: nothing that exists without permission, and with it only what is this library's."""

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from ptycho.cli import main
from ptycho.data import save_npz, save_scan
from ptycho.errors import OutputError
from ptycho.files import RECORD, adopt, mixture, recorded, saved_together, written_whole
from ptycho.files.locks import hidden_folder, remove_leftovers
from ptycho.model.bundle import save_bundle
from ptycho.workflows.output_folder import RESULT_FILES, TRAINING_FILES, output_folder, require_free
from tests.support import simulated_scan

COMMANDS = {
    "simulate": (["simulate", "--size", "64", "--N", "32", "--n_positions", "4"], ("scan.npz", "scan.png")),
    "doctor": (["doctor", "scan.npz", "--orientations", "false"], ("doctor.json", "doctor.png")),
    "train": (["train", "scan.npz", "--nepochs", "1"], TRAINING_FILES),
    "pretrain": (["pretrain", "scan.npz", "--nepochs", "1"], TRAINING_FILES),
    "run": (["run", "scan.npz", "--nepochs", "1"], (*RESULT_FILES, *TRAINING_FILES)),
    "run --refine": (["run", "scan.npz", "--refine", "1"], ("network/reconstruction.h5", "engine-state.npz")),
    "demo": (["demo", "--nepochs", "1"], ("scan.npz", *RESULT_FILES, *TRAINING_FILES)),
    "reconstruct": (["reconstruct", "scan.npz", "model"], RESULT_FILES),
    "reconstruct --engine": (["reconstruct", "scan.npz", "--engine", "rpie", "--epochs", "1"], RESULT_FILES),
    "refine": (["refine", "result", "scan.npz", "--epochs", "1"], RESULT_FILES),
    "evaluate": (["evaluate", "result", "scan.npz"], ("evaluation.json", "evaluation.png", "frc.png")),
    "bundle import": (["bundle", "import", "archive.zip"], ("wts.h5.zip", "config.yaml")),
}
"""Every command that writes to a folder, and some of the names that it writes."""
IN_FOLDERS = [(command, name) for command, (_, names) in COMMANDS.items() for name in names]
TARGETS = ("convert", "bundle export", "inspect")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in; what a command would read is not there, so that a refusal must come before it is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder: Path) -> dict[str, object]:
    """What is below a folder, by name: contents of files, targets of links, kinds of the rest."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        name = str(path.relative_to(folder))
        if stat.S_ISLNK(mode):
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)
    return found


def refused(capsys, words) -> str:
    """The sentence with which a command is refused."""
    assert main([str(word) for word in words]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1, told.err
    return told.err


@pytest.mark.parametrize(("command", "name"), IN_FOLDERS)
def test_a_file_of_others_is_named_and_kept(here, capsys, command, name):
    path = here / "out" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"somebody's")
    before = everything(here)
    for force in ([], ["--force"]):
        assert f"out/{name} " in refused(capsys, [*COMMANDS[command][0], "--out", "out", *force])
        assert everything(here) == before


def make_link(path, elsewhere):
    elsewhere.write_text("theirs")
    path.symlink_to(elsewhere)


def make_dangling_link(path, elsewhere):
    path.symlink_to(elsewhere)


def make_folder(path, elsewhere):
    path.mkdir()
    (path / "thesis.docx").write_text("mine")


def make_pipe(path, elsewhere):
    os.mkfifo(path)


def make_socket(path, elsewhere):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


KINDS = [make_link, make_dangling_link, make_folder, make_pipe, make_socket]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("listed", [False, True])
def test_what_is_no_regular_file_is_never_replaced(here, capsys, command, make, listed):
    path = here / "out" / COMMANDS[command][1][0]
    path.parent.mkdir(parents=True)
    make(path, here / "elsewhere")
    if listed:
        adopt(path.parent, [path.name])
    before = everything(here)
    for force in ([], ["--force"]):
        assert str(path.relative_to(here)) in refused(capsys, [*COMMANDS[command][0], "--out", "out", *force])
        assert everything(here) == before


@pytest.mark.parametrize("inner", ["checkpoints", "logs", "network", "tensorboard"])
@pytest.mark.parametrize("make", KINDS)
def test_folders_inside_an_output_folder_are_no_links(here, capsys, inner, make):
    (here / "out").mkdir()
    (here / "elsewhere").mkdir()
    if make is make_folder:
        pytest.skip("a folder may be there")
    if make in (make_link, make_dangling_link):
        (here / "elsewhere" / "last.ckpt").write_text("theirs")
        (here / "out" / inner).symlink_to("../elsewhere" if make is make_link else "../nowhere")
    else:
        make(here / "out" / inner, None)
    before = everything(here)
    words = ["run", "scan.npz", "--out", "out", "--refine", "1", "--tensorboard", "true"]
    for force in ([], ["--force"]):
        assert f"out/{inner} " in refused(capsys, [*words, *force])
        assert everything(here) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_replaced_behind_a_link_to_an_output_folder(here, capsys, command):
    words, names = COMMANDS[command]
    place = (here / "theirs" / names[0]).parent
    place.mkdir(parents=True)
    (place / Path(names[0]).name).write_text("earlier")
    adopt(place, [Path(names[0]).name])
    (here / "out").symlink_to("theirs")
    before = everything(here)
    assert "out is a symbolic link" in refused(capsys, [*words, "--out", "out", "--force"])
    assert everything(here) == before


def target_words(command: str, target: Path) -> list[str]:
    if command == "convert":
        return ["convert", "scan.npz", str(target)]
    return ["bundle", "export", "model", "--to", "torch", "--out", str(target)]


@pytest.mark.parametrize("ending", [".npz", ".h5", ".cxi", ".zarr"])
@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("command", ["convert", "bundle export"])
def test_a_target_that_is_no_regular_file(here, capsys, command, make, ending):
    if ending == ".h5":
        words = [*target_words(command, here / f"thesis{ending}"), *(["--to", "nexus"] if command == "convert" else [])]
    else:
        words = target_words(command, here / f"thesis{ending}")
    make(here / f"thesis{ending}", here / "elsewhere")
    before = everything(here)
    for force in ([], ["--force"]):
        assert f"thesis{ending} " in refused(capsys, [*words, *force])
        assert everything(here) == before


@pytest.mark.parametrize("content", [b"mine", b""])
@pytest.mark.parametrize("name", ["thesis.npz", "data.cxi", "x.zarr"])
def test_a_regular_target_is_replaced_with_force_alone(here, capsys, content, name):
    pytest.importorskip("zarr")
    save_npz(simulated_scan(M=4, N=16), here / "scan.npz")
    (here / name).write_bytes(content)
    assert f"{name} exists already" in refused(capsys, ["convert", "scan.npz", name])
    assert (here / name).read_bytes() == content
    assert main(["convert", "scan.npz", name, "--force"]) == 0
    assert sorted(os.listdir(here)) == sorted(["scan.npz", name])


STRANGERS = ["notes.txt", ".hidden", "patterns/notes.txt", "patterns/0.0.0.bak", "zarr.json", "other/0.0", ".zgroup~"]


class TestStore:
    @pytest.fixture
    def store(self, here):
        pytest.importorskip("zarr")
        scan = simulated_scan(M=4, N=16)
        save_npz(scan, here / "scan.npz")
        save_scan(scan, here / "x.zarr")
        return here / "x.zarr"

    def test_a_store_of_this_library_is_replaced(self, store):
        before = everything(store)
        assert main(["convert", "scan.npz", "x.zarr", "--force", "--write_as", "amplitude"]) == 0
        assert everything(store) != before
        assert sorted(os.listdir(store.parent)) == ["scan.npz", "x.zarr"]

    @pytest.mark.parametrize("name", STRANGERS)
    def test_a_store_that_holds_more_is_not(self, store, capsys, name):
        (store / name).parent.mkdir(exist_ok=True)
        (store / name).write_text("mine")
        before = everything(store.parent)
        told = refused(capsys, ["convert", "scan.npz", "x.zarr", "--force"])
        assert "x.zarr holds" in told
        assert everything(store.parent) == before

    def test_a_link_in_a_store(self, store, capsys):
        (store / "patterns" / "9.9.9").symlink_to("/etc/passwd")
        assert "patterns/9.9.9" in refused(capsys, ["convert", "scan.npz", "x.zarr", "--force"])

    @pytest.mark.parametrize("attributes", [None, b"", b"{}", b"[", b'{"format": "other"}', b'["ptychopinn-scan"]'])
    def test_other_folders(self, here, capsys, attributes):
        save_npz(simulated_scan(M=4, N=16), here / "scan.npz")
        (here / "thesis.zarr").mkdir()
        (here / "thesis.zarr" / "thesis.docx").write_text("mine")
        if attributes is not None:
            (here / "thesis.zarr" / ".zattrs").write_bytes(attributes)
        before = everything(here)
        for force in ([], ["--force"]):
            assert "thesis.zarr " in refused(capsys, ["convert", "scan.npz", "thesis.zarr", *force])
            assert everything(here) == before


def save(folder: Path, text: str, names: str, overwrite: bool = True) -> None:
    with saved_together(folder, overwrite=overwrite) as stage:
        for name in names:
            (stage / name).write_text(f"{text} {name}")


class TestRecord:
    def test_listed_files_alone_are_replaced(self, tmp_path):
        save(tmp_path, "first", "a")
        (tmp_path / "b").write_text("mine")
        assert recorded(tmp_path / "a")
        assert not recorded(tmp_path / "b")
        with pytest.raises(OutputError, match="a exists already"):
            save(tmp_path, "second", "a", overwrite=False)
        with pytest.raises(OutputError, match="b was not written"):
            save(tmp_path, "second", "ab")
        assert (tmp_path / "a").read_text() == "first a"
        save(tmp_path, "second", "a")
        assert (tmp_path / "a").read_text() == "second a"
        assert sorted(os.listdir(tmp_path)) == [RECORD, "a", "b"]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'{"files": ["a"]}',
            b'{"format": "other", "files": ["a"]}',
            b"\xff" * 10,
            b'{"format": "ptychopinn folder", "files": "a"}',
            b"[" * 100_000,
        ],
    )
    def test_a_file_of_its_name_that_is_no_record(self, tmp_path, content):
        (tmp_path / RECORD).write_bytes(content)
        (tmp_path / "a").write_text("mine")
        assert not recorded(tmp_path / "a")
        with pytest.raises(OutputError, match="is not a record"), written_whole(tmp_path / "new", own=True):
            pass
        with pytest.raises(OutputError, match="is not a record"), output_folder(tmp_path, ["new"]):
            pass
        assert (tmp_path / RECORD).read_bytes() == content

    @pytest.mark.parametrize("name", ["../a", "/a", ".", "..", "", RECORD, 7, None, ["a"], "x\0y"])
    def test_names_elsewhere_are_ignored(self, tmp_path, name):
        (tmp_path / "in").mkdir()
        (tmp_path / "a").write_text("mine")
        record = {"format": "ptychopinn folder", "version": 1, "files": [name]}
        (tmp_path / "in" / RECORD).write_text(json.dumps(record))
        assert not recorded(tmp_path / "a")
        save(tmp_path / "in", "new", "b")
        assert json.loads((tmp_path / "in" / RECORD).read_text())["files"] == ["b"]

    def test_a_linked_record_is_not_followed(self, tmp_path):
        (tmp_path / "real").write_text(json.dumps({"format": "ptychopinn folder", "version": 1, "files": ["a"]}))
        (tmp_path / RECORD).symlink_to("real")
        (tmp_path / "a").write_text("mine")
        assert not recorded(tmp_path / "a")
        with pytest.raises(OutputError, match="is not a record"), written_whole(tmp_path / "b", own=True):
            pass

    def test_an_interrupted_save_names_the_files_that_do_not_belong_together(self, tmp_path, monkeypatch):
        for text in ("first", "second"):
            save(tmp_path, text, "abc")
            assert mixture(tmp_path) is None
        replace = os.replace

        def killed(source, target):
            if Path(target).name == "b":
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, "third", "abc")
        monkeypatch.undo()
        assert [(tmp_path / name).read_text() for name in "abc"] == ["third a", "second b", "second c"]
        assert "a of the last run, b, c of the one before" in mixture(tmp_path)
        save(tmp_path, "fourth", "abc")
        assert mixture(tmp_path) is None


OTHERS = [
    ".thesis.docx.part",
    ".a.npz.1234abcd.part",
    "last.docx",
    "best.txt",
    ".ptychopinn",
    ".ptychopinn-x",
    ".ptychopinn-1234567g",
]


class TestLeftovers:
    @pytest.mark.parametrize(
        "name", [*OTHERS, ".ptychopinn-12345678", ".ptychopinn-12345678.lock", ".ptychopinn-1234567g"]
    )
    def test_files_of_others_are_kept(self, tmp_path, name):
        (tmp_path / name).write_text("mine")
        remove_leftovers(tmp_path)
        with written_whole(tmp_path / "a"):
            pass
        assert (tmp_path / name).read_text() == "mine"

    @pytest.mark.parametrize("name", [".ptychopinn-12345678", ".a.npz.1234abcd.part"])
    @pytest.mark.parametrize("lock", [None, b"", b"other"])
    def test_folders_of_others_are_kept(self, tmp_path, name, lock):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.docx").write_text("mine")
        if lock is not None:
            (tmp_path / name / "lock").write_bytes(lock)
        remove_leftovers(tmp_path)
        assert (tmp_path / name / "thesis.docx").read_text() == "mine"

    def test_links_are_not_followed(self, tmp_path):
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs" / "lock").write_bytes(b"ptychopinn process 1\n")
        (tmp_path / "theirs" / "thesis.docx").write_text("mine")
        (tmp_path / ".ptychopinn-12345678").symlink_to("theirs")
        remove_leftovers(tmp_path)
        assert (tmp_path / "theirs" / "thesis.docx").read_text() == "mine"
        assert (tmp_path / ".ptychopinn-12345678").is_symlink()

    @pytest.mark.parametrize("stage", ["empty", "lock", "marked", "written"])
    def test_those_of_killed_processes_are_removed(self, tmp_path, stage):
        hidden = tmp_path / ".ptychopinn-0123abcd"
        hidden.mkdir()
        if stage != "empty":
            (hidden / "lock").write_bytes(b"" if stage == "lock" else b"ptychopinn process 1 on here\n")
        if stage == "written":
            (hidden / "new").write_text("half")
        (tmp_path / ".ptychopinn-89abcdef.lock").write_bytes(b"ptychopinn process 1 on here\n")
        remove_leftovers(tmp_path)
        assert os.listdir(tmp_path) == []

    def test_those_of_living_processes_are_kept(self, tmp_path):
        with hidden_folder(tmp_path) as hidden:
            (hidden / "new").write_text("half")
            remove_leftovers(tmp_path)
            with written_whole(tmp_path / "a"):
                pass
            assert (hidden / "new").read_text() == "half"
        assert os.listdir(tmp_path) == ["a"]

    def test_what_was_set_aside_is_given_back(self, tmp_path):
        aside = tmp_path / ".ptychopinn-0123abcd" / "earlier-target"
        aside.mkdir(parents=True)
        (aside.parent / "lock").write_bytes(b"ptychopinn process 1 on here\n")
        (aside / "x.zarr").mkdir()
        (aside / "x.zarr" / "data").write_text("old")
        remove_leftovers(tmp_path)
        assert everything(tmp_path) == {"x.zarr": stat.S_IFDIR, "x.zarr/data": b"old"}


class TestEarlierVersions:
    """Results without a record count as this library's where one of them opens as such."""

    def test_a_bundle(self, tmp_path):
        from tests.safety.samples import write_bundle

        (tmp_path / "made").mkdir()
        path = write_bundle(tmp_path / "made")
        out = tmp_path / "out"
        out.mkdir()
        (out / "wts.h5.zip").write_bytes(Path(path).read_bytes())
        (out / "config.yaml").write_text("seed: 1\n")
        (out / "report.html").write_text("mine")
        require_free(out, ["wts.h5.zip", "config.yaml"], force=True)
        with pytest.raises(OutputError, match=r"report\.html was not written"):
            require_free(out, ["report.html"], force=True)
        with pytest.raises(OutputError, match="exists already"):
            require_free(out, ["config.yaml"])

    @pytest.mark.parametrize("content", [b"mine", b"", b"PK\x05\x06" + bytes(18), b"\x89HDF\r\n\x1a\n"])
    @pytest.mark.parametrize("evidence", ["reconstruction.h5", "wts.h5.zip", "checkpoints/training.json"])
    def test_a_file_of_that_name_alone_is_no_evidence(self, tmp_path, evidence, content):
        (tmp_path / evidence).parent.mkdir(exist_ok=True)
        (tmp_path / evidence).write_bytes(content)
        (tmp_path / "amplitude.tif").write_text("mine")
        for name in (evidence, "amplitude.tif"):
            with pytest.raises(OutputError, match="was not written"):
                require_free(tmp_path, [name], force=True)

    def test_a_label(self, tmp_path):
        folder = tmp_path / "checkpoints"
        folder.mkdir()
        (folder / "training.json").write_text('{"settings": {}, "scan": "abc"}')
        for name in ("last.ckpt", "best.keras", "last.docx"):
            (folder / name).write_text("x")
        require_free(tmp_path, ["checkpoints/last.ckpt", "checkpoints/best.keras"], force=True)
        with pytest.raises(OutputError, match=r"last\.docx was not written"):
            require_free(tmp_path, ["checkpoints/last.docx"], force=True)


def test_a_bundle_replaces_no_other_file(tmp_path):
    from ptycho.model.bundle import load_bundle
    from tests.safety.samples import write_bundle

    (tmp_path / "made").mkdir()
    bundle = load_bundle(write_bundle(tmp_path / "made"))
    (tmp_path / "wts.h5.zip").write_text("mine")
    with pytest.raises(OutputError, match="was not written"):
        save_bundle(bundle, tmp_path, overwrite=True)
    assert (tmp_path / "wts.h5.zip").read_text() == "mine"
