"""Names, metadata and file names that would control a terminal or a page are printed visibly, by every command."""

import io
import json
import logging
import os
import sys
import unicodedata

import pytest

from ptycho.cli.printing import LineFormatter, json_lines, print_lines
from ptycho.data import save_npz, save_scan
from ptycho.errors import BackendError, ConfigError, DataError, OutputError
from ptycho.viewer.frames import plain_json
from ptycho.visible import visible
from ptycho.workflows.report import report_html
from ptycho.workflows.results import load_reconstruction, save_reconstruction
from tests.model.test_bundle import resealed
from tests.safety.samples import write_bundle
from tests.support import simulated_scan, true_result

NAMES = {
    "title": "star\x1b]0;owned\x07",
    "colour": "star\x1b[2J\x1b[31m",
    "c1": "star\x9b31m\x90q",
    "direction": "star\u202egnp.exe\u2066",
    "line": "star\nsaved /etc/passwd\r\u2028done",
    "surrogate": "star\ud83d",
    "byte": "star\udcff",
    "delete": "star\x7f\x08\x00",
    "tag": "star\U000e0041\u200b\u00ad",
}


def safe(text):
    """Whether a text holds nothing but line ends and what is seen as itself."""
    return all(
        char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for char in text
    )


@pytest.fixture
def run(ptycho):
    """The real command; its code and both streams, after a check that they are safe for a terminal."""

    def call(*words, **how):
        done = ptycho(*words, **how)
        assert done.code in (0, 2), done
        assert safe(done.out), repr(done.out)
        assert safe(done.err), repr(done.err)
        assert "Traceback" not in done.err
        return done.code, done.out, done.err

    return call


class TestVisible:
    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
    def test_leaves_nothing_that_controls_a_terminal(self, name):
        shown = visible(name)
        assert safe(shown)
        assert "\n" not in shown
        assert shown.startswith("star")
        assert visible(shown) == shown
        shown.encode("utf-8")

    def test_says_which_characters_they_are(self):
        assert visible("a\x1b\u202e\n\udcff\x9b") == r"a\x1b\u202e\n\xff\u009b"

    @pytest.mark.parametrize("name", ["plain", "Größe 5 µm", "試料", "образец", "דגימה", "a\u00a0b", "e\u0301"])
    def test_leaves_every_script_as_it_is(self, name):
        assert visible(name) == name

    @pytest.mark.parametrize("kind", [DataError, ConfigError, OutputError, BackendError])
    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
    def test_is_what_an_error_says(self, kind, name):
        assert safe(str(kind(f"{name} is no scan."))), kind
        assert "\n" not in str(kind(f"{name} is no scan."))


class TestStreams:
    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
    def test_printing_never_fails(self, encoding, name):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        print_lines(name, "µ 試", file=stream)
        written = stream.buffer.getvalue().decode(encoding)
        assert safe(written)
        assert written.count("\n") == 2

    @pytest.mark.parametrize("logger", ["ptycho.data", "ptycho_torch", "h5py", "py.warnings"])
    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
    def test_a_log_line(self, logger, name):
        record = logging.LogRecord(logger, logging.WARNING, "f.py", 1, "read %s", (name,), None)
        lines = LineFormatter("%(levelname)s %(name)s: %(message)s").format(record).split("\n")
        assert all(safe(line) for line in lines)
        assert lines[0].startswith(f"WARNING {logger}: read star")
        assert all(line.startswith("    ") for line in lines[1:])
        assert len(lines) == 1 or not logger.startswith("ptycho")

    def test_a_traceback_in_the_log(self):
        try:
            raise ValueError(NAMES["title"])
        except ValueError:
            record = logging.LogRecord("ptycho", logging.ERROR, "f.py", 1, "failed", (), sys.exc_info())
        text = LineFormatter("%(message)s").format(record)
        assert safe(text)
        assert "ValueError: star\\x1b]0;owned\\x07" in text

    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
    def test_json_stays_json(self, name):
        lines = json_lines({"name": name})
        assert all(safe(line) for line in lines)
        assert json.loads("\n".join(lines)) == {"name": name}


class TestPages:
    @pytest.mark.parametrize("name", [*NAMES.values(), "<script>alert(1)</script>", "a' onload=\"x"])
    def test_a_report_and_the_page_of_a_result(self, name, tmp_path):
        scan = simulated_scan(M=20, N=16).replace(name=name)
        result = true_result(
            scan, provenance={"data": {"name": name}, "command": f"ptycho {name}", name: {name: [name]}}
        )
        html = report_html(result, {})
        assert safe(html)
        assert "<script" not in html
        assert 'onload="' not in html
        page = plain_json({"title": name, name: [name]})
        assert safe(json.loads(page)["title"])
        save_reconstruction(result, tmp_path / "out")
        assert load_reconstruction(tmp_path / "out").provenance["data"]["name"] == name


class TestCommands:
    @pytest.mark.parametrize(
        "name",
        [NAMES["title"], NAMES["line"], NAMES["surrogate"], "cost $\\frac{$", "n" * 6000],
        ids=["title", "line", "surrogate", "mathematics", "long"],
    )
    def test_the_name_of_a_scan(self, name, run, tmp_path):
        save_scan(simulated_scan(M=20, N=16).replace(name=name), tmp_path / "scan.cxi")
        code, out, _ = run("inspect", str(tmp_path / "scan.cxi"), "--out", str(tmp_path / "pictures"), "--verbose")
        assert code == 0
        assert visible(name)[:4] in out

    @pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
    @pytest.mark.parametrize("name", [b"\xff.npz", b"a\x1b[31m.npz", b"a\xe2\x80\xae.npz", b"a\nsaved b.npz"])
    def test_file_names(self, name, locale, run, tmp_path):
        env = {"LC_ALL": locale}
        code, _, err = run("inspect", os.fsdecode(os.fsencode(tmp_path) + b"/" + name), env=env)
        assert code == 2
        assert f"{visible(os.fsdecode(name))} does not exist" in err
        save_npz(simulated_scan(M=20, N=16), tmp_path / "scan.npz")
        os.rename(tmp_path / "scan.npz", os.fsencode(tmp_path) + b"/" + name)
        code, out, _ = run(
            "inspect", os.fsdecode(os.fsencode(tmp_path) + b"/" + name), "--out", str(tmp_path / "o"), env=env
        )
        assert code == 0
        assert out.count("\n") > 3
        assert not any(line.startswith("saved b") for line in out.split("\n"))

    @pytest.mark.parametrize("encoding", ["ascii"])
    def test_streams_of_another_encoding(self, encoding, run, tmp_path):
        save_npz(simulated_scan(M=20, N=16).replace(name="試料 µ"), tmp_path / "scan.npz")
        words = ("inspect", str(tmp_path / "scan.npz"), "--out", str(tmp_path / "out"))
        _, out, _ = run(*words, env={"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"})
        assert r"\u8a66\u6599" in out

    @pytest.mark.parametrize("bad", [name for key, name in NAMES.items() if key not in ("surrogate", "delete")])
    def test_the_words_of_the_command_line(self, bad, run):
        for words in (
            (bad,),
            ("train", bad),
            ("train", "x.npz", f"--{bad}"),
            ("train", "x.npz", f"--{bad}=3"),
            ("train", "x.npz", "--nepochs", bad),
            ("bundle", bad),
            ("inspect", "a", bad),
            ("inspect", "a", "--region", bad),
            ("view", bad),
        ):
            code, _, err = run(*words)
            assert code == 2
            assert err.count("\n") == 1

    @pytest.mark.parametrize("where", ["backend", "versions", "imported_from"])
    def test_what_a_bundle_says_of_itself(self, where, run, tmp_path):
        path = write_bundle(tmp_path)
        for number, name in enumerate(NAMES.values()):
            changed = resealed(
                path, tmp_path / f"{number}.zip", {}, **{where: name if where == "backend" else {name: name}}
            )
            run("bundle", "info", str(changed))
            run("bundle", "info", str(changed), "--json")

    def test_settings_in_yaml(self, run, tmp_path):
        for number, name in enumerate(NAMES.values()):
            path = tmp_path / f"{number}.yaml"
            path.write_text(json.dumps({name: 1, "nepochs": name}).replace("\\ud83d", "x").replace("\\udcff", "y"))
            code, _, err = run("train", "x.npz", "--config", str(path))
            assert code == 2
            assert err.count("\n") == 1
