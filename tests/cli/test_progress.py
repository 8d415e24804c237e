"""Progress bars: on a terminal, and only there."""

import logging
import os
import sys

import pytest

from ptycho.cli.progress_bars import ProgressBars

SMALL = ("simulate", "--out", "sim", "--size", 96, "--n_positions", 30)


@pytest.fixture
def terminal():
    """The two ends of a terminal: what is written to the first is read from the second."""
    pty = pytest.importorskip("pty")
    inner, outer = pty.openpty()
    yield outer, inner
    for end in (inner, outer):
        os.close(end)


def test_a_terminal_sees_a_bar(ptycho, terminal):
    outer, inner = terminal
    outcome = ptycho(*SMALL, stderr=outer, env={"TERM": "xterm", "COLUMNS": "100"})
    assert outcome.code == 0
    drawn = os.read(inner, 65536).decode()
    assert "simulate" in drawn
    assert "30/30" in drawn


def test_quiet_draws_nothing(ptycho, terminal):
    outer, inner = terminal
    ptycho(*SMALL, "--quiet", stderr=outer, env={"TERM": "xterm"})
    os.write(outer, b"end")
    assert os.read(inner, 65536) == b"end"


def test_without_a_terminal_epochs_are_logged(caplog):
    with caplog.at_level(logging.INFO), ProgressBars() as bars:
        bars.counter("reconstruct")(3, 4)
        bars.epochs("train")(2, 9, {"loss": 0.5})
    assert not sys.stderr.isatty()
    assert "train 2/9  loss 0.5" in caplog.text
