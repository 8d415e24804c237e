"""The example of every public name runs: what one step returns, the next one takes."""

import doctest

import pytest

import ptycho
from tests import support

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
TRAINING = {"run_scan", "train", "train_scan"}


@pytest.mark.parametrize("name", sorted(set(ptycho.__all__) - {"__version__"}))
def test_example(name, tmp_path, monkeypatch):
    if name in TRAINING and not support.installed("pytorch"):
        pytest.skip("PyTorch, whose training the example shows, is not installed")
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestParser().get_doctest(getattr(ptycho, name).__doc__, {}, f"ptycho.{name}", None, None)
    assert any("ptycho." in one.source for one in example.examples)
    report = []
    failed, _ = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append)
    assert not failed, "".join(report)
