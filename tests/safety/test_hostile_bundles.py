"""A bundle whose parts do not fit together ends every command and function that uses it in one sentence."""

import json

import numpy as np
import pytest
import safetensors.numpy

from ptycho import cli
from ptycho.config import TrainingConfig
from ptycho.data import save_npz
from ptycho.errors import DataError
from ptycho.model.bundle import load_bundle
from ptycho.model.complete import require_complete
from ptycho.workflows.reconstruct import reconstruct
from ptycho.workflows.run import open_bundle, train_scan
from tests.model.test_bundle import json_of, resealed
from tests.support import simulated_scan
from tests.workflows.test_bundles import make

KERNEL, BIAS = "encoder/block0/conv0/kernel", "encoder/block0/conv0/bias"
LAST, HEAD = "amplitude/last/conv0/bias", "phase/centre/kernel"


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A whole bundle, its file, and a scan of its pattern size."""
    folder = tmp_path_factory.mktemp("bundle")
    bundle, path = make(folder)
    save_npz(simulated_scan(M=20, N=64), folder / "scan.npz")
    return bundle, path, folder / "scan.npz"


def without(name):
    return lambda params: params.pop(name)


def replaced(name, change):
    return lambda params: params.update({name: np.ascontiguousarray(change(params[name]))})


def poisoned(name, value):
    def change(values):
        values = values.copy()
        values[(0,) * values.ndim] = value
        return values

    return replaced(name, change)


WEIGHTS = {
    "no kernel": without(KERNEL),
    "no bias": without(BIAS),
    "no last layer": without(HEAD),
    "no border": without("amplitude/border/kernel"),
    "no probe": without("probe/imag"),
    "no scale": without("log_scale"),
    "one more": lambda params: params.update({"encoder/block9/conv0/kernel": params[KERNEL]}),
    "a strange name": lambda params: params.update({"\x1b[2J" + "x" * 6000: params[KERNEL]}),
    "a narrower kernel": replaced(KERNEL, lambda v: v[..., :-1]),
    "a kernel of more channels": replaced(KERNEL, lambda v: np.repeat(v, 2, axis=2)),
    "a larger kernel": replaced("amplitude/last/conv0/kernel", lambda v: np.pad(v, ((1, 1), (1, 1), (0, 0), (0, 0)))),
    "a flat kernel": replaced(KERNEL, np.ravel),
    "an empty kernel": replaced(KERNEL, lambda v: v[:0]),
    "a short bias": replaced(BIAS, lambda v: v[:-1]),
    "a short last bias": replaced(LAST, lambda v: v[:-1]),
    "a wider head": replaced(HEAD, lambda v: np.repeat(v, 2, axis=2)),
    "float64": replaced(KERNEL, lambda v: v.astype(np.float64)),
    "float16": replaced(BIAS, lambda v: v.astype(np.float16)),
    "integers": replaced(BIAS, lambda v: v.astype(np.int32)),
    "NaN": poisoned(KERNEL, np.nan),
    "infinite": poisoned(BIAS, np.inf),
    "a NaN in the probe": poisoned("probe/real", np.nan),
    "an infinite scale": poisoned("log_scale", np.inf),
    "a scale that overflows": poisoned("log_scale", 100.0),
    "a small probe": lambda params: params.update({k: params[k][:, :8, :8] * 1 for k in ("probe/real", "probe/imag")}),
    "a large probe": lambda params: params.update(
        {k: np.tile(params[k], (1, 2, 2)) for k in ("probe/real", "probe/imag")}
    ),
    "no modes": lambda params: params.update({k: params[k][:0] for k in ("probe/real", "probe/imag")}),
    "a probe of one plane": replaced("probe/real", lambda v: v[0]),
}
JSON = {
    "config: another N": ("config.json", {"model": {"N": 128}}),
    "config: wider": ("config.json", {"model": {"n_filters_scale": 64}}),
    "config: groups": ("config.json", {"model": {"gridsize": 2}}),
    "config: many groups": ("config.json", {"model": {"gridsize": 10**6}}),
    "config: with a start": ("config.json", {"model": {"start_iterations": 3}}),
    "config: a list": ("config.json", {"model": {"N": [64]}}),
    "config: no number": ("config.json", {"model": {"N": "x"}}),
    "config: NaN": ("config.json", {"model": {"probe_scale": float("nan")}}),
    "config: a model of another type": ("config.json", {"model": []}),
    "config: a long name": ("config.json", {"x" * 6000: 1}),
    "config: a network that is not installed": ("config.json", {"model": {"architecture": "\x1b[2J"}}),
    "units: a list": ("units.json", {"nphotons": [1]}),
    "units: null": ("units.json", {"intensity_scale": None}),
    "units: infinite": ("units.json", {"intensity_scale": float("inf")}),
    "units: too large": ("units.json", {"intensity_scale": 1e300}),
    "units: too many photons": ("units.json", {"nphotons": 1e300}),
    "units: too few photons": ("units.json", {"nphotons": 1e-300}),
    "units: a huge canvas": ("units.json", {"side": 10**6}),
    "units: an enormous canvas": ("units.json", {"side": 10**400}),
    "units: a history of texts": ("units.json", {"history": {"loss": ["x"]}}),
    "units: a history of numbers": ("units.json", {"history": {"loss": 3}}),
    "units: a measurement": ("units.json", {"measurement": ["counts"]}),
    "manifest: versions": ("manifest.json", {"versions": [1]}),
    "manifest: origin": ("manifest.json", {"imported_from": "x"}),
    "manifest: started from": ("manifest.json", {"started_from": [1]}),
    "manifest: sums": ("manifest.json", {"sha256": 3}),
    "manifest: version": ("manifest.json", {"format_version": [1]}),
}
CASES = [*WEIGHTS, *JSON]
DESCRIBED = {"config: a network that is not installed"}


def damaged(sample, folder, name):
    """The file with one part changed and checksums that fit."""
    bundle, path, _ = sample
    if name in WEIGHTS:
        params = {key: values.copy() for key, values in bundle.params.items()}
        WEIGHTS[name](params)
        return resealed(path, folder / "wts.zip", {"weights.safetensors": safetensors.numpy.save(params)})
    member, change = JSON[name]
    if member == "manifest.json":
        from tests.model.test_bundle import rewritten

        text = json.dumps({**json_of(path), **change}).encode()
        return rewritten(path, folder / "wts.zip", lambda n, data: text if n == member else data)
    found = json_of(path, member)
    merged = {k: {**found[k], **v} if isinstance(v, dict) and k == "model" else v for k, v in change.items()}
    return resealed(path, folder / "wts.zip", {member: json.dumps({**found, **merged}).encode()})


@pytest.mark.parametrize("name", CASES)
def test_commands_end_with_a_sentence(sample, tmp_path, name, capsys):
    path = str(damaged(sample, tmp_path, name))
    scan, out = str(sample[2]), tmp_path / "out"
    for words in (
        ["bundle", "info", path],
        ["bundle", "export", path, "--to", "onnx", "--output_file", str(tmp_path / "x.onnx")],
        ["reconstruct", path, scan, "--out", str(out)],
        ["run", scan, "--from", path, "--out", str(out), "--nepochs", "1"],
    ):
        code = cli.main(words)
        said = capsys.readouterr()
        if words[1] == "info" and name in DESCRIBED:
            assert code == 0
            continue
        sentences = [line for line in said.err.splitlines() if line.startswith("ptycho: ")]
        assert (code, len(sentences)) == (2, 1), (words, said)
        assert len(sentences[0]) < 800
        assert "\x1b" not in said.err + said.out
    assert sorted(found.name for found in tmp_path.iterdir() if not found.name.startswith(".")) == ["wts.zip"]


@pytest.mark.parametrize("name", ["no kernel", "a short bias", "a small probe", "NaN", "float64", "units: null"])
def test_functions_raise_the_error(sample, tmp_path, name):
    path = damaged(sample, tmp_path, name)
    with pytest.raises(DataError):
        open_bundle(path)
    scan = simulated_scan(M=20, N=64)
    with pytest.raises(DataError):
        train_scan(scan, TrainingConfig(nepochs=1, start_model=path, model=sample[0].config.model))
    with pytest.raises(DataError):
        reconstruct(scan, load_bundle(path))


def test_an_honest_bundle_passes(sample):
    bundle, path, _ = sample
    require_complete(bundle)
    assert open_bundle(path).params.keys() == bundle.params.keys()
    assert cli.main(["bundle", "info", str(path)]) == 0
