"""A small whole file for every loader of the library, and what loading it gives as one digest."""

from __future__ import annotations

import bz2
import dataclasses
import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ptycho.config import ModelConfig, TrainingConfig, config_to_dict
from ptycho.data import load_scan, save_scan
from ptycho.model.bundle import Bundle, load_bundle, save_bundle
from ptycho.model.importers.archives import import_archive
from ptycho.workflows.results import Reconstruction, load_reconstruction
from tests.support import simulated_scan


class Loader(NamedTuple):
    """How a kind of file is made and read."""

    make: Callable[[Path], Path]
    """Write a whole file into an empty folder."""
    load: Callable[[Path], str]
    """Read everything in it, and give a digest of that."""
    family: str
    """What it is made of: zip, hdf5, or folder."""


def digest(value: Any) -> str:
    """SHA-256 of arrays, numbers, texts and containers of them, whatever they mean."""
    sha = hashlib.sha256()

    def add(part: Any) -> None:
        if hasattr(part, "dtype") and hasattr(part, "shape"):  # lazy patterns too, which are read here
            array = np.ascontiguousarray(part)
            sha.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
            return
        if dataclasses.is_dataclass(part):
            part = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        if isinstance(part, dict):
            for key in sorted(part):
                sha.update(str(key).encode())
                add(part[key])
        elif isinstance(part, list | tuple):
            sha.update(f"[{len(part)}".encode())
            for item in part:
                add(item)
        elif part is None or isinstance(part, str | bool | int | float | Path):
            sha.update(repr(part).encode())
        else:
            raise TypeError(f"no digest of {type(part).__name__}")

    add(value)
    return sha.hexdigest()


def read_scan(path: Path, format: str) -> str:
    """A scan with all its patterns; what is asked of a file that is unclear is answered."""
    scan = load_scan(path, format=format, measurement="counts")
    try:
        return digest(scan)
    finally:
        getattr(scan.patterns, "close", lambda: None)()


def read_bundle(path: Path) -> str:
    """A bundle but for its native files and its manifest, whose versions mean nothing to the model."""
    bundle = load_bundle(path)
    return digest(
        [bundle.params, config_to_dict(bundle.config), bundle.nphotons, bundle.group_canvas_side, bundle.history]
    )


def read_archive(path: Path) -> str:
    """An imported model and where it came from."""
    bundle = import_archive(path, np.ones((1, 64, 64), np.complex64))
    return digest([bundle.params, config_to_dict(bundle.config), bundle.nphotons])


def write_bundle(folder: Path) -> Path:
    """A bundle with few weights."""
    rng = np.random.default_rng(0)
    shapes = {"encoder/block0/conv0/kernel": (3, 3, 1, 4), "probe/real": (2, 8, 8), "probe/imag": (2, 8, 8)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    params["log_scale"] = np.asarray(1.5, np.float32)
    config = TrainingConfig(model=ModelConfig(N=128, gridsize=2), nepochs=7)
    return save_bundle(Bundle(params, config, 12.5, 1e6, 78, {"loss": [3.0, 0.5]}, {"model.pth": b"native"}), folder)


def write_result(name: str) -> Callable[[Path], Path]:
    """One file of a small reconstruction."""

    def write(folder: Path) -> Path:
        from ptycho.workflows import results

        rng = np.random.default_rng(0)
        image = rng.normal(size=(20, 24)) + 1j * rng.normal(size=(20, 24))
        result = Reconstruction(
            object=image,
            weight=np.ones((20, 24)),
            origin=(1.5, -2.0),
            positions=rng.uniform(5, 15, (6, 2)),
            probe=rng.normal(size=(1, 8, 8)) + 0j,
            history={"loss": [2.0, 1.0]},
            metrics={"r_factor": 0.1},
            provenance={"command": "ptycho run"},
            measured=np.ones((2, 8, 8)),
            predicted=np.ones((2, 8, 8)),
            mask=np.ones((8, 8), bool),
        )
        arrays = results._flat(result)
        path = folder / name
        (results.write_hdf5 if name.endswith(".h5") else results.write_npz)(path, arrays)
        return path

    return write


def scan() -> Any:
    """Six patterns with everything a scan can have."""
    made = simulated_scan(M=6, N=16)
    mask = np.ones((16, 16), bool)
    mask[3, 4] = False
    return made.replace(mask=mask, scan_index=np.arange(6), metadata={"sample": "star", "turns": 3})


def write_scan(ending: str, format: str) -> Callable[[Path], Path]:
    """The scan in one of the library's formats."""

    def write(folder: Path) -> Path:
        path = folder / f"scan{ending}"
        save_scan(scan(), path, format=format)
        return path

    return write


def write_tike(packed: bool) -> Callable[[Path], Path]:
    """Tike's NPZ."""

    def write(folder: Path) -> Path:
        made, target = scan(), io.BytesIO()
        patterns = np.fft.ifftshift(made.patterns, axes=(-2, -1))
        np.savez_compressed(target, data=patterns, scan=made.positions.astype(np.float32), probe=made.probe[None])
        path = folder / ("scan.npz.bz2" if packed else "scan.npz")
        path.write_bytes(bz2.compress(target.getvalue()) if packed else target.getvalue())
        return path

    return write


def write_ptyd(folder: Path) -> Path:
    """ptypy's prepared data, in two chunks."""
    made = scan()
    with h5py.File(folder / "scan.ptyd", "w") as file:
        for i, part in enumerate((slice(0, 4), slice(4, 6))):
            chunk = file.create_group(f"chunks/{i}")
            chunk["data"], chunk["positions"] = made.patterns[part], made.positions[part] * 1e-8
            chunk["weights"] = np.broadcast_to(made.mask, made.patterns[part].shape).astype(np.float32)
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = 10.0, 1.0, np.array([75e-6, 75e-6])
        file["meta/label"] = "star"
    return folder / "scan.ptyd"


def write_shelves(folder: Path) -> Path:
    """PtychoShelves's HDF5 file."""
    made = scan()
    with h5py.File(folder / "scan.hdf5", "w") as file:
        file.create_dataset("dp", data=made.patterns, chunks=(1, 16, 16), compression="gzip")
        file["ppX"], file["ppY"] = made.positions[:, 1] * 1e-8, made.positions[:, 0] * 1e-8
        file["lambda"], file["dx"] = 1e-10, 1e-8
    return folder / "scan.hdf5"


def write_torch_archive(folder: Path) -> Path:
    """PtychoPINN's archive with a PyTorch model."""
    from tests.model.test_import_torch import archive, network, saved

    return archive(folder / "wts.h5.zip", saved(network().state_dict()))


def write_keras_archive(folder: Path) -> Path:
    """PtychoPINN's archive with a Keras model."""
    from tests.model import keras_original as original
    from tests.model.test_import_keras import settings

    with warnings.catch_warnings():  # Keras hands numpy the weights in a way that numpy 2 has deprecated
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy")
        model = original.keras_bytes(original.build()[0])
    members = original.archive_members({"diffraction_to_obj": model}, settings())
    return original.write_zip(folder / "wts.h5.zip", members)


def write_state(folder: Path) -> Path:
    """An iterative reconstruction that can be gone on with."""
    from ptycho.engines.state import State, save_state

    rng = np.random.default_rng(0)
    places = rng.uniform(8, 16, (6, 2))
    image, probe = (rng.normal(size=shape) + 1j for shape in ((24, 24), (1, 8, 8)))
    memory = {"step": np.arange(3.0)}
    save_state(
        State(image, (0.5, 1.0), probe, places, places + 1, 3, {"r_factor": [0.3, 0.2]}, memory), folder / "s.npz"
    )
    return folder / "s.npz"


def read_state_file(path: Path) -> str:
    """An iterative reconstruction."""
    from ptycho.engines.state import load_state

    return digest(load_state(path))


def write_checkpoint(folder: Path) -> Path:
    """A Lightning checkpoint of PtychoPINN's PyTorch names."""
    from ptycho.config.torch_fields import DataConfig, InferenceConfig, ModelConfig, TrainingConfig
    from ptycho_torch.lightning_utils import save_checkpoint

    bundle = load_bundle(write_bundle(folder))
    settings = {"data_config": DataConfig(), "model_config": ModelConfig()}
    settings |= {"training_config": TrainingConfig(), "inference_config": InferenceConfig()}
    save_checkpoint(bundle, settings, folder / "last.ckpt")
    return folder / "last.ckpt"


def read_checkpoint_file(path: Path) -> str:
    """A checkpoint's model."""
    from ptycho_torch.lightning_utils import read_checkpoint

    bundle, _ = read_checkpoint(path)
    return digest([bundle.params, config_to_dict(bundle.config), bundle.nphotons])


def _scan_loader(make: Callable[[Path], Path], format: str, family: str) -> Loader:
    return Loader(make, lambda path: read_scan(path, format), family)


SCANS = {
    "cxi": _scan_loader(write_scan(".cxi", "cxi"), "cxi", "hdf5"),
    "nexus": _scan_loader(write_scan(".nxs", "nexus"), "nexus", "hdf5"),
    "ptychodus-hdf5": _scan_loader(write_scan(".h5", "ptychodus-hdf5"), "ptychodus-hdf5", "hdf5"),
    "ptychodus-npz": _scan_loader(write_scan(".npz", "ptychodus-npz"), "ptychodus-npz", "zip"),
    "ptychopinn-npz": _scan_loader(write_scan(".npz", "ptychopinn-npz"), "ptychopinn-npz", "zip"),
    "ptychoshelves": _scan_loader(write_shelves, "ptychoshelves", "hdf5"),
    "ptyd": _scan_loader(write_ptyd, "ptyd", "hdf5"),
    "tike-npz": _scan_loader(write_tike(False), "tike-npz", "zip"),
    "tike-npz.bz2": _scan_loader(write_tike(True), "tike-npz", "bz2"),
    "zarr": _scan_loader(write_scan(".zarr", "zarr"), "zarr", "folder"),
}
MODELS = {
    "bundle": Loader(write_bundle, read_bundle, "zip"),
    "import torch": Loader(write_torch_archive, read_archive, "zip"),
    "import keras": Loader(write_keras_archive, read_archive, "zip"),
}
RESULTS = {
    "result npz": Loader(write_result("reconstruction.npz"), lambda p: digest(load_reconstruction(p)), "zip"),
    "result hdf5": Loader(write_result("reconstruction.h5"), lambda p: digest(load_reconstruction(p)), "hdf5"),
}
GOING_ON = {
    "state": Loader(write_state, read_state_file, "zip"),
    "checkpoint": Loader(write_checkpoint, read_checkpoint_file, "torch"),
}
LOADERS = {**SCANS, **MODELS, **RESULTS, **GOING_ON}
