"""PtychoPINN's PyTorch archives, read without PyTorch: the cnn answers as the original; the rest is refused."""

import io
import math
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn import functional

from ptycho.backends import get_backend
from ptycho.errors import DataError
from ptycho.model.generators import find_generator
from ptycho.model.importers.archives import import_archive
from ptycho.model.importers.torch_models import network_of_state, read_state

WIDTHS = {64: ((32, 64, 128), (64, 32)), 128: ((16, 32, 64, 128), (128, 64, 32))}


class Block(nn.Module):
    """Two convolutions, each with its normalisation where wanted, and ReLU."""

    def __init__(self, n_in, n_out, norm=False):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(n_in, n_out, 3, padding=1), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.bn1, self.bn2 = (nn.BatchNorm2d(n_out) if norm else None for _ in range(2))

    def forward(self, x):
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
            x = torch.relu(conv(x) if norm is None else norm(conv(x)))
        return x


def up(x):
    return functional.interpolate(x, scale_factor=2)


class Last(nn.Module):
    """The last stage: as many channels go to the border as come out."""

    def __init__(self, N, width, out, act, probe_big, norm):
        super().__init__()
        self.N, self.out, self.act, self.probe_big = N, out, act, probe_big
        self.conv1, self.conv2 = nn.Conv2d(width - out, out, 3, padding=1), nn.Conv2d(width, out, 3, padding=1)
        self.conv_up_block = Block(out, width, norm)
        self.bn1, self.bn2 = (nn.BatchNorm2d(out) if norm else None for _ in range(2))

    def forward(self, x):
        plain = lambda norm, y: y if norm is None else norm(y)  # noqa: E731
        centre = self.act(plain(self.bn1, self.conv1(x[:, : -self.out])))
        centre = functional.pad(centre, [self.N // 4] * 4)
        if not self.probe_big:
            return centre
        border = up(self.conv_up_block(x[:, -self.out :]))
        border = functional.silu(plain(self.bn2, self.conv2(border)))
        mask = torch.ones(self.N, self.N)
        mask[self.N // 4 : -self.N // 4, self.N // 4 : -self.N // 4] = 0
        return centre + border * mask


class Network(nn.Module):
    """PtychoPINN's ``model.autoencoder``, by its names."""

    def __init__(self, N=64, channels=1, scale=1, act=torch.sigmoid, probe_big=True, norm=False):
        super().__init__()
        encoder, decoder = ([scale * width for width in widths] for widths in WIDTHS[N])

        def blocks(n_in, widths, norm):
            return nn.ModuleList(Block(a, b, norm) for a, b in zip([n_in, *widths], widths, strict=False))

        self.model = nn.Module()
        self.model.autoencoder = root = nn.Module()
        root.encoder = nn.Module()
        root.encoder.blocks = blocks(channels, encoder, norm)
        for name, head_act, head_norm in (("amp", act, False), ("phase", lambda x: math.pi * torch.tanh(x), norm)):
            head = nn.Module()
            head.blocks = blocks(encoder[-1], decoder, head_norm)
            setattr(head, name, Last(N, 32 * scale, channels, head_act, probe_big, head_norm))
            setattr(root, f"decoder_{name}", head)
        self.scaled = nn.Parameter(torch.ones(1))  # something that belongs to no network

    def forward(self, x):
        root = self.model.autoencoder
        for block in root.encoder.blocks:
            x = functional.max_pool2d(block(x), 2)
        parts = []
        for name in ("amp", "phase"):
            head, y = getattr(root, f"decoder_{name}"), x
            for block in head.blocks:
                y = up(block(y))
            parts.append(getattr(head, name)(y))
        return parts[0] * torch.exp(1j * parts[1])


def network(seed=0, **settings):
    torch.manual_seed(seed)
    model = Network(**settings)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.bias, -0.2, 0.2)
    return model.eval()


def saved(value):
    target = io.BytesIO()
    torch.save(value, target)
    return target.getvalue()


def archive(path, model, **settings):
    plain = {"N": 64, "gridsize": 1, "amp_activation": "sigmoid", "nphotons": 1e5, "_version": "2.0-pytorch"}
    params = pickle.dumps({**plain, "object.big": True, "probe.big": True, "intensity_scale": 1.0, **settings})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("manifest.dill", pickle.dumps({"version": "2.0-pytorch"}))
        for name in ("autoencoder", "diffraction_to_obj"):
            target.writestr(f"{name}/model.pth", model)
            target.writestr(f"{name}/params.dill", params)
    return path


@pytest.mark.parametrize(
    ("built", "said"),
    [
        ({}, {}),
        ({"act": functional.silu}, {"amp_activation": "silu"}),
        ({"channels": 4, "norm": True}, {"gridsize": 2}),
        ({"channels": 4, "probe_big": False}, {"gridsize": 2, "probe.big": False}),
        ({"N": 128, "scale": 2}, {"N": 128}),
    ],
    ids=["plain", "silu", "four, normalised", "four, no border", "128"],
)
def test_the_output_is_the_original_s(tmp_path, built, said):
    model = network(**built)
    N, channels = built.get("N", 64), built.get("channels", 1)
    path = archive(tmp_path / "wts.h5.zip", saved(model.state_dict()), **said)
    bundle = import_archive(path, np.ones((1, N, N), np.complex64))
    x = torch.rand(2, channels, N, N)
    with torch.no_grad():
        wanted = model(x).permute(0, 2, 3, 1).numpy()
    config = bundle.config.model
    answer = find_generator("cnn").apply(bundle.params, x.permute(0, 2, 3, 1).numpy(), config, get_backend("numpy"))
    np.testing.assert_allclose(answer, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
    assert (config.N, config.gridsize**2, config.n_filters_scale) == (N, channels, built.get("scale", 1))
    assert bundle.config.backend == "pytorch"
    assert float(bundle.params["log_scale"]) == pytest.approx(np.log(bundle.intensity_scale), rel=1e-6)


def test_needs_a_probe(tmp_path):
    with pytest.raises(DataError, match="holds no probe; name a scan"):
        import_archive(archive(tmp_path / "wts.h5.zip", saved(network().state_dict())))


def test_needs_no_torch(tmp_path):
    path = archive(tmp_path / "wts.h5.zip", saved(network().state_dict()))
    code = (
        "import sys, numpy; sys.modules['torch'] = None; from ptycho.model.importers.archives import import_archive; "
        f"print(len(import_archive({str(path)!r}, numpy.ones((1, 64, 64), complex)).params))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(network_of_state(read_state(saved(network().state_dict()), "m"), "m")) + 3


class TestTensors:
    @pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "bool", "uint8"])
    def test_are_read_exactly(self, dtype):
        values = (torch.arange(24).reshape(2, 3, 4) % 5).to(getattr(torch, dtype))
        state = {"a": values, "b": values.permute(2, 0, 1), "c": values[:, 1], "d": nn.Parameter(torch.ones(3))}
        back = read_state(saved(state), "state")
        assert back.keys() == state.keys()
        for name, tensor in state.items():
            np.testing.assert_array_equal(back[name], tensor.detach().numpy())

    def test_of_a_lightning_checkpoint(self):
        back = read_state(saved({"epoch": 3, "state_dict": {"x": torch.ones(2)}, "loops": {}}), "checkpoint")
        np.testing.assert_array_equal(back["x"], np.ones(2))

    def test_outside_their_storage_are_refused(self):
        whole = saved({"a": torch.arange(6.0)})
        with zipfile.ZipFile(io.BytesIO(whole)) as old:
            folder = old.namelist()[0].split("/")[0]
            data = old.read(f"{folder}/data.pkl")
        for sides in (b"K\x07\x85", b"J\xff\xff\xff\x7f\x85", b"J\xff\xff\xff\xff\x85"):
            assert data.count(b"K\x06\x85") == 1
            with pytest.raises(DataError, match="damaged, or holds more than plain data"):
                read_state(replaced(whole, f"{folder}/data.pkl", data.replace(b"K\x06\x85", sides)), "state")

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(lambda: torch.ones(2, dtype=torch.bfloat16), id="bfloat16"),
            pytest.param(lambda: torch.ones(2).to_sparse(), id="sparse"),
        ],
    )
    def test_of_other_kinds_are_refused(self, value):
        with pytest.raises(DataError, match=r"refused|not read"):
            read_state(saved({"a": value()}), "state")


def replaced(data, name, content):
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.namelist():
            new.writestr(member, content if member == name else old.read(member))
    return target.getvalue()


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda s: s | {ANY.replace("conv1", "attention.mlp.1"): s[ANY]}, r"blocks\.0\.attention\.mlp"),
            (lambda s: s | {"model.autoencoder.decoder_shared.eca.conv.weight": s[ANY]}, r"decoder_shared\.eca\.conv"),
            (lambda s: without(s, "decoder_amp.amp.conv2"), r"decoder_amp\.amp\.conv2 is no convolution"),
            (lambda s: without(s, "decoder_phase.blocks.1"), "phase/block1/conv0/(bias|kernel) is missing"),
            (lambda s: without(s, "encoder.blocks.0"), r"no layer autoencoder\.encoder\.blocks\.0"),
            (lambda s: s | {ANY: s[ANY][:, :, :1]}, r"encoder\.blocks\.0\.conv1 is no convolution"),
            (lambda s: s | {ANY: torch.cat([s[ANY], s[ANY]], 1)}, r"encoder/block0/conv0/kernel is \(3, 3, 2, 32\)"),
            (lambda s: s | {ANY: s[ANY] * math.nan}, "weights are not all finite"),
        ],
        ids=range(8),
    )
    def test_name_the_layer(self, tmp_path, change, sentence):
        path = archive(tmp_path / "wts.h5.zip", saved(change(network().state_dict())))
        with pytest.raises(DataError, match=sentence):
            import_archive(path, np.ones((1, 64, 64), np.complex64))

    def test_a_module_is_no_state(self):
        with pytest.raises(DataError, match=r"asks to call|more than plain data"):
            read_state(saved(nn.Linear(2, 2)), "model.pth")

    def test_code_in_the_pickle_is_not_run(self, tmp_path):
        marker = tmp_path / "ran"

        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(marker),)

        with pytest.raises(DataError, match=r"asks to call (posix|nt)\.mkdir"):
            read_state(saved({"a": Trap()}), "model.pth")
        assert not marker.exists()

    def test_the_old_format(self):
        target = io.BytesIO()
        torch.save({"a": torch.ones(1)}, target, _use_new_zipfile_serialization=False)
        with pytest.raises(DataError, match="not of torch"):
            read_state(target.getvalue(), "model.pth")


ANY = "model.autoencoder.encoder.blocks.0.conv1.weight"


def without(state, part):
    return {name: values for name, values in state.items() if part not in name}
