"""What a model file says about itself, and models for other programs: same outputs, described, whole or not at all."""

import dataclasses
import io
import json
import math
import pickle
import zipfile

import numpy as np
import pytest

from ptycho.backends import get_backend
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.errors import ConfigError, DataError, OutputError
from ptycho.model.bundle import Bundle, save_bundle
from ptycho.model.generators import channels, find_generator
from ptycho.model.importers.archives import CARTESIAN
from ptycho.model.pinn import initial_parameters
from ptycho.physics.photons import intensity_scale
from ptycho.workflows.bundles import describe_model_file, description_lines, export_bundle, input_scale


def make(tmp_path, **settings):
    settings = {"n_filters_scale": 1, "start_iterations": None, **settings}
    config = TrainingConfig(model=ModelConfig(**settings), nepochs=2)
    probe = np.random.default_rng(0).normal(size=(1, config.model.N, config.model.N)).astype(np.complex64)
    params = initial_parameters(config.model, probe, 1e5, seed=3)
    rng = np.random.default_rng(1)
    for name, values in params.items():
        if name.endswith("/bias") or not values.any():
            params[name] = values + 0.02 * rng.normal(size=values.shape).astype(np.float32)
    scale = intensity_scale(1e5, config.model.N)
    bundle = Bundle(params, config, scale, 1e5, config.model.N, {"loss": [3.0, 1.0, 2.0]}, {"model.pth": b"native"})
    return bundle, save_bundle(bundle, tmp_path / "model")


class TestInfo:
    def test_of_a_bundle(self, tmp_path):
        bundle, path = make(tmp_path, gridsize=2)
        found = describe_model_file(path.parent)
        assert found["kind"] == "ptychopinn bundle"
        assert found["model"]["gridsize"] == 2
        assert found["units"]["nphotons"] == 1e5
        assert found["history"] == {"loss": [3.0, 1.0, 2.0]}
        assert found["parameters"]["numbers"] == sum(p.size for p in bundle.params.values())
        with zipfile.ZipFile(path) as archive:
            sums = json.loads(archive.read("manifest.json"))["sha256"]
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        assert {name: entry["sha256"] for name, entry in found["members"].items() if name in sums} == sums
        assert {name: entry["bytes"] for name, entry in found["members"].items()} == sizes
        lines = description_lines(found)
        assert "history loss 3 to 2, lowest 1, 3 epochs" in lines
        assert "probe 1 mode(s) of 64 x 64 pixels" in lines
        assert json.loads(json.dumps(found)) == found

    def test_of_an_archive_of_ptychopinn(self, tmp_path):
        path = tmp_path / "old.zip"
        settings = {"N": 64, "gridsize": 1, "probe": np.ones((64, 64, 1), np.complex64), "label": "first"}
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("autoencoder/model.keras", b"unread")
            archive.writestr("autoencoder/params.dill", pickle.dumps(settings))
        found = describe_model_file(path)
        assert found["models"] == {"autoencoder": "tensorflow"}
        assert found["settings"] == {"N": 64, "gridsize": 1, "probe": "complex64 (64, 64, 1)", "label": "first"}
        assert "model autoencoder (tensorflow)" in description_lines(found)

    def test_commands_no_terminal(self, tmp_path):
        path = tmp_path / "old.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("autoencoder/model.keras", b"")
            archive.writestr("autoencoder/params.dill", pickle.dumps({"label": "\x1b[2Jgone\nfile x"}))
            archive.writestr("\x1b[31mred", b"")
        assert all(line.isprintable() for line in description_lines(describe_model_file(path)))

    def test_of_other_files_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="there is no such file"):
            describe_model_file(tmp_path)
        (tmp_path / "x.zip").write_bytes(b"nonsense")
        with pytest.raises(DataError, match="not a readable bundle"):
            describe_model_file(tmp_path / "x.zip")


class TestExport:
    """Outputs agree to 1e-5 with the library's own, on as many patterns at once as one likes."""

    cases = pytest.mark.parametrize(
        "settings",
        [
            {},
            {"gridsize": 2, "start_iterations": 3},
            pytest.param({"pad_object": False, "amp_activation": "softplus", "N": 128}, marks=pytest.mark.slow),
            pytest.param({"gridsize": 2, "object_big": False, "amp_activation": "swish"}, marks=pytest.mark.slow),
        ],
        ids=str,
    )

    @staticmethod
    def check(run, bundle):
        """Compare amplitude * exp(i phase) with the network's answer in numpy."""
        config = bundle.config.model
        for batch in (1, 3):
            x = np.random.default_rng(batch).gamma(1.0, 1.0, (batch, config.N, config.N, channels(config)[0]))
            x = x.astype(np.float32)
            amplitude, phase = run(x)
            seen = x * np.float32(input_scale(bundle))
            wanted = find_generator(config.architecture).apply(bundle.params, seen, config, get_backend("numpy"))
            assert amplitude.shape == phase.shape == wanted.shape
            assert amplitude.dtype == phase.dtype == np.float32
            np.testing.assert_allclose(amplitude * np.exp(1j * phase), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())

    @cases
    def test_to_torch(self, tmp_path, settings):
        torch = pytest.importorskip("torch")
        bundle, path = make(tmp_path, **settings)
        target = export_bundle(path, "torch")
        assert target == path.with_name("wts.pt2")
        extra = {"ptychopinn.json": ""}
        program = torch.export.load(io.BytesIO(target.read_bytes()), extra_files=extra).module()
        self.check(lambda x: [part.numpy() for part in program(torch.from_numpy(x))], bundle)
        assert f"({'batch'}, {bundle.config.model.N}," in json.loads(extra["ptychopinn.json"])["x"]

    @cases
    def test_to_onnx(self, tmp_path, settings):
        onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        bundle, path = make(tmp_path, **settings)
        target = export_bundle(path, "onnx", tmp_path / "model.onnx")
        session = runtime.InferenceSession(target.read_bytes(), providers=["CPUExecutionProvider"])
        assert [value.name for value in session.get_outputs()] == ["amplitude", "phase"]
        self.check(lambda x: session.run(None, {"x": x}), bundle)
        model = onnx.load(str(target))
        onnx.checker.check_model(model, full_check=True)
        assert {entry.key for entry in model.metadata_props} >= {"x", "amplitude", "phase", "nphotons"}
        assert not any(tensor.external_data for tensor in model.graph.initializer)

    def test_the_scale_of_the_patterns_is_inside(self, tmp_path):
        bundle, _ = make(tmp_path)
        assert input_scale(bundle) == pytest.approx(bundle.intensity_scale / math.exp(bundle.params["log_scale"]))
        assert input_scale(dataclasses.replace(bundle, config=TrainingConfig())) == 1.0

    def test_of_a_network_that_answers_in_complex_numbers(self, tmp_path):
        torch = pytest.importorskip("torch")
        bundle, path = make(tmp_path, architecture=CARTESIAN)
        program = torch.export.load(io.BytesIO(export_bundle(path, "torch").read_bytes())).module()
        self.check(lambda x: [part.numpy() for part in program(torch.from_numpy(x))], bundle)

    def test_refusals(self, tmp_path):
        pytest.importorskip("torch")
        _, path = make(tmp_path)
        with pytest.raises(ConfigError, match="to = tensorrt is not possible: expected one of onnx, torch"):
            export_bundle(path, "tensorrt")
        taken = tmp_path / "taken.pt2"
        taken.write_text("mine")
        with pytest.raises(OutputError, match="exists already"):
            export_bundle(path, "torch", taken)
        assert taken.read_text() == "mine"
        assert export_bundle(path, "torch", taken, overwrite=True).read_bytes()[:2] == b"PK"
        with pytest.raises(OutputError, match="cannot be written"):
            export_bundle(path, "torch", tmp_path / "absent" / "model.pt2")
        with pytest.raises(DataError, match="there is no such file"):
            export_bundle(tmp_path / "absent.zip", "torch")
