"""Files of this library in the hands of others, and theirs in ours; only where those packages are importable."""

import importlib.util

import numpy as np
import pytest

from ptycho.data import load_scan, save_scan
from ptycho.physics.patches import extract_patches
from tests.support import simulated_scan

ptychodus = pytest.mark.skipif(importlib.util.find_spec("ptychodus") is None, reason="ptychodus is not importable")
cdtools = pytest.mark.skipif(importlib.util.find_spec("cdtools") is None, reason="cdtools is not importable")


@pytest.fixture
def scan():
    """Patterns with off-grid positions, two modes, a bad pixel, and an object that does not begin at the origin."""
    made = simulated_scan(M=9, N=16, modes=2)
    mask = np.ones((16, 16), bool)
    mask[2, 3] = False
    offsets = np.random.default_rng(5).uniform(-0.5, 0.5, made.positions.shape)
    return made.replace(positions=made.positions + offsets, mask=mask, object_origin=(-3.0, 5.0))


def on_object(scan):
    """(M, 2): the object's pixel (row, col) under the middle of every patch."""
    return scan.positions - np.asarray(scan.object_origin)


def assert_product_means(product, scan):
    """A product of ptychodus has the scan's probe, object, energy, and the positions on the object's pixels."""
    geometry = product.object_.get_geometry()
    rows = geometry.map_probe_positions_to_object_y_px(product.probe_positions)
    columns = geometry.map_probe_positions_to_object_x_px(product.probe_positions)
    np.testing.assert_allclose(np.stack([rows, columns], -1), on_object(scan) - 0.5, atol=1e-6)
    from ptychodus.api.interpolate import BarycentricArrayInterpolator

    view = BarycentricArrayInterpolator(product.object_.get_layer(0))
    theirs = np.stack([view.get_patch(x, y, scan.N, scan.N) for y, x in zip(rows[:3], columns[:3], strict=True)])
    np.testing.assert_allclose(theirs, extract_patches(scan.object, on_object(scan)[:3], scan.N), atol=1e-5)
    np.testing.assert_array_equal(product.object_.get_layer(0), scan.object)
    np.testing.assert_array_equal(product.probes.get_probe_no_opr().get_array(), scan.probe)
    assert geometry.pixel_width_m == pytest.approx(scan.object_pixel_size, rel=1e-9)
    assert product.probes.get_pixel_geometry().height_m == pytest.approx(scan.object_pixel_size, rel=1e-9)
    assert product.metadata.photon_wavelength_m == pytest.approx(scan.wavelength, rel=1e-9)
    assert product.metadata.detector_distance_m == pytest.approx(scan.distance, rel=1e-12)
    assert product.metadata.name == scan.name


@ptychodus
def test_ptychodus_opens_our_product(scan, tmp_path):
    from ptychodus.api.io import load_diffraction_data
    from ptychodus.plugins.h5_product_file import H5ProductFileIO

    path = tmp_path / "scan.h5"
    save_scan(scan, path)
    assert_product_means(H5ProductFileIO().read(path), scan)
    data = load_diffraction_data(path)
    np.testing.assert_array_equal(data._patterns, scan.patterns)
    np.testing.assert_array_equal(data._bad_pixels, ~scan.mask)
    assert data.get_pixel_geometry().width_m == scan.detector_pixel_size


@ptychodus
def test_ptychodus_opens_our_npz(scan, tmp_path):
    from ptychodus.plugins.npz_diffraction_file import NPZDiffractionFileIO
    from ptychodus.plugins.npz_product_file import NPZProductFileIO

    path = tmp_path / "scan.product.npz"
    save_scan(scan, path)
    assert_product_means(NPZProductFileIO().read(path), scan)
    data = NPZDiffractionFileIO().read(path)
    np.testing.assert_array_equal(next(iter(data)).get_patterns(), scan.patterns)
    np.testing.assert_array_equal(data.get_bad_pixels(), ~scan.mask)


@ptychodus
@pytest.mark.parametrize("ending", ["cxi", "nxs"])
def test_ptychodus_opens_our_cxi(scan, tmp_path, ending):
    from ptychodus.plugins.cxi_file import CXIDiffractionFileReader, CXIProductFileIO

    path = tmp_path / f"scan.{ending}"
    save_scan(scan, path)
    data = CXIDiffractionFileReader().read(path)
    np.testing.assert_array_equal(next(iter(data)).get_patterns(), scan.patterns)
    np.testing.assert_array_equal(data.get_bad_pixels(), ~scan.mask)
    assert data.get_metadata().detector_distance_m == scan.distance
    assert data.get_metadata().detector_pixel_geometry.width_m == scan.detector_pixel_size
    if ending == "cxi":  # NeXus keeps the photon energy where ptychodus does not look
        assert_product_means(CXIProductFileIO().read(path), scan)


@ptychodus
@pytest.mark.parametrize("kind", ["hdf5", "npz", "cxi"])
def test_we_open_a_product_of_ptychodus(scan, tmp_path, kind):
    """What ptychodus reads and writes again without our record means the same as before."""
    from ptychodus.api.io import load_diffraction_data, save_diffraction_data
    from ptychodus.plugins.cxi_file import CXIDiffractionFileReader, CXIDiffractionFileWriter, CXIProductFileIO
    from ptychodus.plugins.h5_product_file import H5ProductFileIO
    from ptychodus.plugins.npz_product_file import NPZProductFileIO

    ours = tmp_path / "ours.cxi"
    save_scan(scan, ours)
    save_scan(scan, tmp_path / "ours.h5")
    product = H5ProductFileIO().read(tmp_path / "ours.h5")
    save_diffraction_data(tmp_path / "diffraction.h5", load_diffraction_data(tmp_path / "ours.h5"))
    io, ending = {
        "hdf5": (H5ProductFileIO(), "h5"),
        "npz": (NPZProductFileIO(), "npz"),
        "cxi": (CXIProductFileIO(), "cxi"),
    }[kind]
    path = tmp_path / f"theirs.{ending}"
    io.write(path, product)
    if kind == "cxi":  # ptychodus keeps patterns and product in two CXI files
        CXIDiffractionFileWriter().write(tmp_path / "patterns.cxi", CXIDiffractionFileReader().read(ours))
    loaded = load_scan(path, **({"patterns_file": tmp_path / "patterns.cxi"} if kind == "cxi" else {}))
    np.testing.assert_array_equal(loaded.patterns[:], scan.patterns)
    np.testing.assert_array_equal(loaded.mask, scan.mask)
    np.testing.assert_array_equal(loaded.probe, scan.probe)
    np.testing.assert_array_equal(loaded.object, scan.object)
    np.testing.assert_allclose(loaded.positions, scan.positions, atol=1e-6)
    np.testing.assert_allclose(loaded.object_origin, scan.object_origin, atol=1e-6)
    assert loaded.object_pixel_size == pytest.approx(scan.object_pixel_size, rel=1e-9)
    assert (loaded.measurement, loaded.distance) == ("counts", scan.distance)
    assert loaded.wavelength == pytest.approx(scan.wavelength, rel=1e-9)


@cdtools
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ["cxi", "nxs"])
def test_cdtools_opens_our_cxi(scan, tmp_path, ending):
    import torch
    from cdtools.datasets import Ptycho2DDataset
    from cdtools.tools.initializers import exit_wave_geometry
    from cdtools.tools.interactions import translations_to_pixel

    path = tmp_path / f"scan.{ending}"
    save_scan(scan, path)
    dataset = Ptycho2DDataset.from_cxi(path)
    np.testing.assert_array_equal(dataset.patterns.numpy(), scan.patterns)
    np.testing.assert_array_equal(dataset.mask.numpy(), scan.mask)
    assert float(dataset.wavelength) == pytest.approx(scan.wavelength, rel=1e-6)
    geometry = dataset.detector_geometry
    assert float(geometry["distance"]) == pytest.approx(scan.distance, rel=1e-6)
    basis = exit_wave_geometry(
        torch.as_tensor(geometry["basis"], dtype=torch.float32),
        dataset.patterns.shape[-2:],
        dataset.wavelength,
        geometry["distance"],
    )
    pixels = translations_to_pixel(basis, dataset.translations).numpy()
    np.testing.assert_allclose(pixels - pixels[0], scan.positions - scan.positions[0], atol=1e-3)


@cdtools
@pytest.mark.filterwarnings("ignore")
def test_we_open_what_cdtools_writes(scan, tmp_path):
    from cdtools.datasets import Ptycho2DDataset

    save_scan(scan, tmp_path / "ours.cxi")
    Ptycho2DDataset.from_cxi(tmp_path / "ours.cxi").to_cxi(str(tmp_path / "theirs.cxi"))
    loaded = load_scan(tmp_path / "theirs.cxi")
    np.testing.assert_array_equal(loaded.patterns[:], scan.patterns)
    np.testing.assert_array_equal(loaded.mask, scan.mask)
    np.testing.assert_allclose(loaded.positions, scan.positions, atol=1e-3)
    assert loaded.wavelength == pytest.approx(scan.wavelength, rel=1e-6)
    assert loaded.object_pixel_size == pytest.approx(scan.object_pixel_size, rel=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("ptypy") is None, reason="ptypy is not importable")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["append", "link"])
def test_we_open_what_ptypy_prepares(tmp_path, kind):
    """ptypy's own test scan: the patterns are those of its object under its probe at the positions we read."""
    from ptypy import utils
    from ptypy.core.data import EOS, MoonFlowerScan

    pars = utils.Param()
    pars.update(num_frames=30, shape=32, save=kind, dfile=str(tmp_path / "moon.ptyd"), photons=1e6, psf=0.0)
    pars.update(density=0.2, model="round", energy=7.2, distance=7.0, psize=172e-6, auto_center=None)
    pars.update(center="fftshift", rebin=1, label="moon", min_frames=10, block_wait_count=0)
    moon = MoonFlowerScan(pars=pars)
    moon.initialize()
    while moon.auto(10) != EOS:
        pass
    scan = load_scan(tmp_path / "moon.ptyd")
    difference = scan.positions - moon.pixel[: len(scan)]
    assert np.abs(difference - difference.mean(axis=0)).max() < 0.6  # ptypy has rounded its own to whole pixels
    patches = np.stack([moon.obj[r : r + 32, c : c + 32] for r, c in moon.pixel[: len(scan)]])
    far = np.fft.fftshift(np.fft.fft2(patches * moon.pr, norm="ortho"), axes=(-2, -1))
    assert np.corrcoef(np.abs(far).ravel(), scan.amplitude().ravel())[0, 1] > 0.995
    assert scan.object_pixel_size == pytest.approx(moon.geo.resolution[0], rel=1e-6)
