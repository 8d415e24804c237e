"""The calls that ptychodus makes in its child processes, in its order, on every training backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.backend import get_trainer
from ptycho.errors import BackendError

BACKENDS = [
    ("pytorch", 1),
    ("pytorch", 2),
    pytest.param("tensorflow", 2, marks=pytest.mark.slow),
    pytest.param("jax", 2, marks=pytest.mark.slow),
]


def model_config(N, gridsize):
    from ptycho.config.config import ModelConfig

    return ModelConfig(
        N=N,
        gridsize=gridsize,
        n_filters_scale=1,
        model_type="PINN".lower(),
        amp_activation="sigmoid",
        object_big=True,
        probe_big=True,
        probe_mask=False,
        pad_object=True,
        probe_scale=4.0,
        gaussian_smoothing_sigma=0.0,
    )


def export(scan, path):
    """A file as ptychodus writes it: counts in the detector's type, all modes, bad pixels filled and marked."""
    columns, rows = scan.positions[:, 1], scan.positions[:, 0]
    modes = np.concatenate([scan.probe, 0.1 * scan.probe])
    bad = np.zeros((scan.N, scan.N), bool)
    np.savez(
        path,
        xcoords=columns,
        ycoords=rows,
        xcoords_start=columns,
        ycoords_start=rows,
        diff3d=np.asarray(scan.patterns).astype(np.uint16),
        bad_pixels=bad,
        probeGuess=modes,
        objectGuess=scan.object,
        scan_index=np.zeros(len(scan), dtype=int),
    )


def train(folder, backend, gridsize):
    import ptycho.model_manager
    import ptycho.params
    from ptycho.config.config import TrainingConfig, update_legacy_dict
    from ptycho.raw_data import RawData
    from ptycho.workflows.components import run_cdi_example, save_outputs

    test_raw_data = RawData.from_file(folder / "test_data.npz")
    train_raw_data = RawData.from_file(folder / "train_data.npz")
    config = TrainingConfig(
        model=model_config(0, gridsize),
        train_data_file=Path(),
        test_data_file=None,
        batch_size=16,
        nepochs=1,
        nphotons=1e6,
        positions_provided=True,
        output_dir=Path(),
    )
    config.backend, config.n_groups, config.model.estimate_passes = backend, 16, 8
    config.model.N = train_raw_data.diff3d.shape[-1]
    update_legacy_dict(ptycho.params.cfg, config)
    recon_amp, recon_phase, results = run_cdi_example(train_raw_data, test_raw_data, config)
    ptycho.model_manager.save(folder)
    assert (folder / "wts.h5.zip").is_file()
    save_outputs(recon_amp, recon_phase, results, str(folder))


def reconstruct(folder, scan, gridsize):
    import ptycho.loader
    import ptycho.params
    import ptycho.probe
    import ptycho.tf_helper
    from ptycho.config.config import InferenceConfig, update_legacy_dict
    from ptycho.raw_data import RawData
    from ptycho.workflows.components import load_inference_bundle

    config = InferenceConfig(
        model=model_config(64, gridsize), model_path=Path(), test_data_file=Path(), debug=False, output_dir=Path()
    )
    update_legacy_dict(ptycho.params.cfg, config)
    model, _ = load_inference_bundle(folder)
    raw = RawData.from_coords_without_pc(
        xcoords=scan.positions[:, 1],
        ycoords=scan.positions[:, 0],
        diff3d=np.asarray(scan.patterns).astype(np.uint16),
        probeGuess=scan.probe,
        scan_index=np.zeros(len(scan), dtype=int),
        objectGuess=scan.object,
    )
    ptycho.probe.set_probe_guess(None, raw.probeGuess)
    dataset = raw.generate_grouped_data(config.model.N, K=7, nsamples=len(scan), gridsize=config.model.gridsize)
    container = ptycho.loader.load(lambda: dataset, raw.probeGuess, which=None, create_split=False)
    scale = ptycho.params.get("intensity_scale")
    patches = model.predict([container.X * scale, container.local_offsets])
    image = np.squeeze(ptycho.tf_helper.reassemble_position(patches, container.global_offsets, M=20))
    return image, container.global_offsets.mean(axis=0).ravel()[::-1]


@pytest.mark.parametrize(("backend", "gridsize"), BACKENDS)
def test_ptychodus_trains_and_reconstructs(scan, tmp_path, backend, gridsize):
    try:
        get_trainer(backend)
    except BackendError:
        pytest.skip(f"{backend} is not installed")
    for name in ("train", "test"):
        export(scan, tmp_path / f"{name}_data.npz")
    train(tmp_path, backend, gridsize)
    image, centre = reconstruct(tmp_path, scan, gridsize)
    assert image.ndim == 2
    assert np.iscomplexobj(image)
    first = np.round(centre).astype(int) - image.shape[0] // 2
    rows, columns = np.nonzero(np.abs(image) > 0)
    found, true = image[rows, columns], scan.object[rows + first[0], columns + first[1]]
    assert abs(np.vdot(found, true)) / (np.linalg.norm(found) * np.linalg.norm(true)) > 0.97
