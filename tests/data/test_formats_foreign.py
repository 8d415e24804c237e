"""Files as other programs write them: units, axes, signs, where things stand, and what is said when they do not."""

import h5py
import hdf5plugin
import numpy as np
import pytest

from ptycho.data import Scan, load_scan, save_scan, scan_from_arrays
from ptycho.data.lazy import LazyPatterns
from ptycho.data.orientation import ORIENTATIONS, reorient
from ptycho.errors import DataError
from tests.support import simulated_scan

WAVELENGTH, DISTANCE, PIXEL = 1.2398419843320026e-10, 2.0, 75e-6  # 10 keV
ENERGY = 1.602176634e-15
SHAPE = (6, 8, 8)
OBJECT_PIXEL = WAVELENGTH * DISTANCE / (8 * PIXEL)


@pytest.fixture(scope="module")
def patterns():
    return np.random.default_rng(2).poisson(5, SHAPE).astype(np.uint16)


@pytest.fixture(scope="module")
def positions():
    return np.random.default_rng(3).uniform(0, 40, (6, 2))


@pytest.fixture
def store(tmp_path):
    """Write named arrays to an HDF5 file; a value (values, attributes) has attributes; None leaves the name out."""

    def write(content, name="scan.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            for key, value in content.items():
                values, attributes = value if isinstance(value, tuple) else (value, {})
                if values is not None:
                    file[key] = values
                    file[key].attrs.update(attributes)
        return tmp_path / name

    return write


def cxi(patterns, positions, **changes):
    """The least that a CXI file holds; keyword names with __ for /."""
    translation = np.zeros((len(positions), 3))
    translation[:, :2] = positions[:, ::-1] * OBJECT_PIXEL
    content = {
        "instrument_1/detector_1/data": patterns,
        "instrument_1/detector_1/distance": DISTANCE,
        "instrument_1/detector_1/x_pixel_size": PIXEL,
        "instrument_1/detector_1/y_pixel_size": PIXEL,
        "instrument_1/source_1/energy": ENERGY,
        "sample_1/geometry_1/translation": translation,
    }
    content |= {key.replace("__", "/"): value for key, value in changes.items()}
    return {f"entry_1/{key}": value for key, value in content.items()}


def test_cxi(store, patterns, positions):
    scan = load_scan(store(cxi(patterns, positions), "a.cxi"))
    np.testing.assert_array_equal(scan.patterns[:], patterns)
    np.testing.assert_allclose(scan.positions, positions)
    assert (scan.measurement, scan.distance, scan.detector_pixel_size, scan.name) == ("counts", DISTANCE, PIXEL, "a")
    assert scan.wavelength == pytest.approx(WAVELENGTH)
    assert scan.probe is scan.object is scan.mask is None


def test_cxi_has_many_places(store, patterns, positions):
    content = cxi(patterns, positions)
    content["entry_1/data_1/data"] = content.pop("entry_1/instrument_1/detector_1/data")
    content["entry_1/data_1/translation"] = content.pop("entry_1/sample_1/geometry_1/translation")
    content |= {
        "entry_1/instrument_1/source_1/energy": (10.0, {"units": "keV"}),
        "entry_1/instrument_1/detector_1/distance": (2000.0, {"units": "mm"}),
        "entry_1/instrument_1/detector_1/x_pixel_size": None,
        "entry_1/instrument_1/detector_1/y_pixel_size": (75.0, {"units": "um"}),
        "entry_1/instrument_1/source_1/illumination": np.ones((2, 8, 8), np.complex64),
        "entry_1/title": "a title",
    }
    scan = load_scan(store(content))
    np.testing.assert_allclose(scan.positions, positions)
    assert scan.wavelength == pytest.approx(WAVELENGTH)
    assert (scan.probe.shape, scan.name) == ((2, 8, 8), "a title")


@pytest.mark.parametrize(
    ("basis", "turn"),
    [
        ([[0, -1, 0], [-1, 0, 0]], "none"),
        ([[0, 1, 0], [-1, 0, 0]], "flip-rows"),
        ([[0, -1, 0], [1, 0, 0]], "flip-columns"),
        ([[-1, 0, 0], [0, -1, 0]], "transpose"),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_cxi_follows_the_basis_of_the_detector(store, patterns, positions, basis, turn, transposed):
    vectors = np.array(basis, float) * PIXEL
    content = cxi(patterns, positions, instrument_1__detector_1__basis_vectors=vectors.T if transposed else vectors)
    content["entry_1/instrument_1/detector_1/x_pixel_size"] = None
    content["entry_1/instrument_1/detector_1/y_pixel_size"] = None
    scan = load_scan(store(content))
    expected = reorient(positions, turn)
    np.testing.assert_allclose(scan.positions - scan.positions.mean(0), expected - expected.mean(0), atol=1e-9)
    assert scan.detector_pixel_size == pytest.approx(PIXEL)


def test_cxi_mask_and_distance_from_the_corner(store, patterns, positions):
    mask = np.zeros((8, 8), np.uint32)
    mask[1, 2], mask[3, 3] = 1, 0x1000
    content = cxi(patterns, positions, instrument_1__detector_1__mask=mask)
    content["entry_1/instrument_1/detector_1/distance"] = None
    content["entry_1/instrument_1/detector_1/corner_position"] = np.array([3e-4, 3e-4, DISTANCE])
    scan = load_scan(store(content))
    assert (int((~scan.mask).sum()), bool(scan.mask[1, 2])) == (1, False)
    assert scan.distance == pytest.approx(DISTANCE)


def test_cxi_image_that_is_no_probe_is_left_out(store, patterns, positions, caplog):
    content = cxi(patterns, positions, image_1__data=np.ones((50, 60), complex))
    assert load_scan(store(content)).probe is None
    assert "is no probe" in caplog.text


CXI_TROUBLE = [
    ({"instrument_1__detector_1__data": None}, "lacks the patterns"),
    ({"sample_1__geometry_1__translation": None}, "lacks the positions"),
    ({"sample_1__geometry_1__translation": np.zeros(6)}, r"has shape \(6,\), \(number of patterns, 3\)"),
    ({"sample_1__geometry_1__translation": np.zeros((5, 3))}, "5 coordinates given for 6 patterns"),
    ({"instrument_1__detector_1__distance": None}, "the object's pixel is not known; give it with --pixel-size"),
    ({"instrument_1__detector_1__distance": (2.0, {"units": "furlong"})}, "is in 'furlong', one of m, "),
    ({"instrument_1__detector_1__y_pixel_size": 2 * PIXEL}, "square ones are expected; rebin"),
    ({"instrument_1__detector_1__basis_vectors": np.eye(3)}, "two vectors are expected"),
    ({"instrument_1__detector_1__basis_vectors": np.eye(3)[1:]}, "the detector is tilted"),
    ({"instrument_1__detector_1__data": np.zeros((8, 8))}, r"shape \(8, 8\), frames of real numbers"),
    ({"instrument_1__detector_1__data": np.full(SHAPE, b"a")}, "frames of real numbers"),
    ({"instrument_1__detector_1__distance": np.array([1.0, 2.0])}, "has 2 different values, one is expected"),
]


@pytest.mark.parametrize(("changes", "message"), CXI_TROUBLE, ids=[message[:25] for _, message in CXI_TROUBLE])
def test_cxi_with_trouble_is_refused(store, patterns, positions, changes, message):
    path = store(cxi(patterns, positions, **changes))
    with pytest.raises(DataError, match=message) as caught:
        load_scan(path)
    assert "\n" not in str(caught.value)


def test_oblong_frames_are_cut_around_the_beam(store, positions):
    frames = np.random.default_rng(4).poisson(5, (6, 20, 30)).astype(np.uint16)
    path = store(cxi(frames, positions))
    with pytest.raises(DataError, match=r"frames of 20x30 pixels are given.*--beam-centre ROW,COLUMN"):
        load_scan(path)
    with pytest.raises(DataError, match=r"centre \(25, 3\) is not inside"):
        load_scan(path, beam_centre=(25, 3))
    scan = load_scan(path, beam_centre=(11.2, 12.9))
    assert isinstance(scan.patterns, LazyPatterns)
    np.testing.assert_array_equal(scan.patterns[:], frames[:, 2:20, 4:22])
    np.testing.assert_allclose(scan.positions, positions * 18 / 8)


def nexus(patterns, positions, **changes):
    content = cxi(patterns, positions, definition="NXcxi_ptycho", **changes)
    content["entry_1/instrument_1/source_1/energy"] = (3.0, {"units": "GeV"})
    content["entry_1/instrument_1/beam_1/energy"] = content.pop("energy", (10.0, {"units": "keV"}))
    return content


def test_nexus_takes_the_energy_of_the_beam_and_cuts_to_it(store, positions):
    frames = np.random.default_rng(4).poisson(5, (2, 3, 20, 16)).astype(np.uint16)
    detector = {
        f"instrument_1__detector_1__beam_center_{axis}": (value, {"units": units})
        for axis, value, units in (("y", 11 * PIXEL * 1e3, "mm"), ("x", 8.0, "pixels"))
    }
    scan = load_scan(store(nexus(frames, positions, **detector), "a.nxs"))
    np.testing.assert_array_equal(scan.patterns[:], frames.reshape(6, 20, 16)[:, 3:19, 0:16])
    np.testing.assert_array_equal(scan.patterns[1:5], scan.patterns[:][1:5])
    np.testing.assert_allclose(scan.positions, positions * 2)
    assert scan.wavelength == pytest.approx(WAVELENGTH)


def test_nexus_finds_groups_by_class(store, patterns, positions):
    content = nexus(patterns, positions)
    renamed = {
        key.replace("instrument_1", "beamline").replace("detector_1", "eiger"): value for key, value in content.items()
    }
    path = store(renamed)
    with h5py.File(path, "a") as file:
        file["entry_1/beamline"].attrs["NX_class"] = "NXinstrument"
        file["entry_1/beamline/eiger"].attrs["NX_class"] = "NXdetector"
        file["entry_1/beamline/beam_1"].attrs["NX_class"] = b"NXbeam"
    scan = load_scan(path)
    assert scan.wavelength == pytest.approx(WAVELENGTH)
    np.testing.assert_allclose(scan.positions, positions)
    with pytest.raises(DataError, match="has no entry of the definition"):
        load_scan(store({"a": 1}, "b.h5"), format="nexus")


def ptyd(patterns, positions):
    metres = positions * OBJECT_PIXEL
    content = {
        "meta/energy": 10.0,
        "meta/distance": DISTANCE,
        "meta/psize": np.array([PIXEL, PIXEL]),
        "meta/center": np.array([4.0, 4.0]),
        "meta/label": "a label",
    }
    for number, part in (("0", slice(0, 2)), ("10", slice(4, 6)), ("2", slice(2, 4))):
        content |= {f"chunks/{number}/data": patterns[part], f"chunks/{number}/positions": metres[part]}
    return content


def test_ptyd_follows_its_chunks(store, patterns, positions):
    path = store(ptyd(patterns, positions), "a.ptyd")
    scan = load_scan(path)
    np.testing.assert_array_equal(scan.patterns[:], patterns)
    np.testing.assert_array_equal(scan.patterns[[1, 2, 5]], patterns[[1, 2, 5]])
    scan.patterns.close()
    np.testing.assert_allclose(scan.positions, positions)
    assert scan.wavelength == pytest.approx(WAVELENGTH)
    assert (scan.name, scan.mask) == ("a label", None)
    with h5py.File(path, "a") as file:
        file["chunks/0/weights"] = np.ones((2, 8, 8))
        file["chunks/0/weights"][1, 3, 4] = 0
    assert np.argwhere(~load_scan(path).mask).tolist() == [[3, 4]]


def test_ptyd_linked_chunks(tmp_path, patterns, positions, store):
    content = ptyd(patterns, positions)
    for number in ("0", "10", "2"):
        part = {key.rsplit("/", 1)[1]: content.pop(key) for key in list(content) if key.startswith(f"chunks/{number}/")}
        store(part, f"a.ptyd.part{number}")
    path = store(content, "a.ptyd")
    with h5py.File(path, "a") as file:
        file["chunks/0"] = h5py.ExternalLink("a.ptyd.part0", "/")
        file["chunks/10"] = h5py.ExternalLink(str(tmp_path / "a.ptyd.part10"), "/")
        file["chunks/2"] = h5py.ExternalLink("/elsewhere/before/it/was/moved/a.ptyd.part2", "/")
    with pytest.raises(DataError, match=r"--data-dir .* where a\.ptyd\.part2 lies now"):
        load_scan(path)
    np.testing.assert_array_equal(load_scan(path, data_dirs=[tmp_path]).patterns[:], patterns)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunks/0/positions": None}, "chunks/0/positions has shape None"),
        ({"chunks/0/positions": (np.zeros(1), {"type": "None"})}, "has shape None"),
        ({"meta/psize": np.array([1.0, 2.0])}, "the same along both axes"),
        ({"info/propagation": "nearfield"}, "near-field"),
        ({"meta/energy": (np.zeros(1), {"type": "None"})}, "--pixel-size"),
        ({"chunks/2/data": np.zeros((2, 9, 9))}, "frames of one size"),
    ],
)
def test_ptyd_with_trouble_is_refused(store, patterns, positions, changes, message):
    with pytest.raises(DataError, match=message):
        load_scan(store(ptyd(patterns, positions) | changes))


def test_ptychoshelves_pair(store, patterns, positions):
    dp = store({"dp": patterns}, "data_roi0_dp.hdf5")
    with pytest.raises(DataError, match=r"has no data_roi0_para.hdf5 beside it"):
        load_scan(dp)
    metres = positions * OBJECT_PIXEL
    para = {"ppX": metres[:, 1:], "ppY": metres[:, :1], "lambda": WAVELENGTH, "dx": np.array([[OBJECT_PIXEL]])}
    places = store(para, "data_roi0_para.hdf5")
    for path in (dp, places):
        scan = load_scan(path)
        np.testing.assert_array_equal(scan.patterns[:], patterns)
        np.testing.assert_allclose(scan.positions, positions)
        assert (scan.name, scan.pixel_size, scan.wavelength) == ("data_roi0", OBJECT_PIXEL, WAVELENGTH)


@pytest.fixture
def matlab(tmp_path):
    """Write arrays as MATLAB does: axes in the opposite order, complex numbers as pairs, behind a user block."""

    def write(content):
        path = tmp_path / "scan.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            for key, values in content.items():
                values = np.asarray(values).T
                if np.iscomplexobj(values):
                    pairs = np.empty(values.shape, [("real", values.real.dtype), ("imag", values.real.dtype)])
                    pairs["real"], pairs["imag"] = values.real, values.imag
                    values = pairs
                file[key] = values
        with path.open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
        return path

    return write


def test_matlab_file(matlab, patterns, positions, caplog):
    rng = np.random.default_rng(0)
    probe, image = (rng.normal(size=(*shape, 2)).view(complex)[..., 0] for shape in ((8, 8, 2), (30, 40)))
    mask = np.ones((8, 8))
    mask[2, 5] = 0
    content = {
        "dp": np.moveaxis(patterns, 0, -1),
        "probe": probe,
        "object": image,
        "fmask": mask,
        "outputs/probe_positions": positions[:, ::-1],
        "p/lambda": [[WAVELENGTH]],
        "p/dx_spec": [[OBJECT_PIXEL, OBJECT_PIXEL]],
    }
    path = matlab(content)
    scan = load_scan(path)
    np.testing.assert_array_equal(scan.patterns[:], patterns)
    np.testing.assert_array_equal(scan.patterns[2:4], patterns[2:4])
    np.testing.assert_array_equal(scan.probe, np.moveaxis(probe, -1, 0))
    np.testing.assert_array_equal(scan.object, image)
    np.testing.assert_array_equal(scan.positions, positions)
    assert np.argwhere(~scan.mask).tolist() == [[2, 5]]
    assert (scan.object_origin, scan.pixel_size) == ((-14.5, -19.5), OBJECT_PIXEL)
    cut = load_scan(path, beam_centre=(3, 5))
    np.testing.assert_array_equal(cut.patterns[:], patterns[:, 0:6, 2:8])
    assert cut.probe is cut.object is None
    assert "the probe is on the pixels of uncut frames and is left out" in caplog.text
    cut.patterns.close()
    scan.patterns.close()
    del content["outputs/probe_positions"]
    with pytest.raises(DataError, match="lacks the positions ppX and ppY"):
        load_scan(matlab(content))


def test_old_matlab_files_are_refused(tmp_path):
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(600))
    with pytest.raises(DataError, match=r"save it with -v7.3"):
        load_scan(tmp_path / "old.mat")


def test_ptychodus_product_and_patterns_belong_together_by_index(tmp_path):
    scan = simulated_scan(M=9, modes=2)
    save_scan(scan, tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as source, h5py.File(tmp_path / "product.h5", "w") as product:
        product.attrs.update({key: value for key, value in source.attrs.items() if not key.startswith("ptychopinn")})
        for name in ("object", "probe"):
            source.copy(name, product)
        keep = [7, 2, 5, 1]
        for name in ("probe_position_indexes", "probe_position_x_m", "probe_position_y_m"):
            product[name] = source[name][()][keep]
    with pytest.raises(DataError, match=r"there is no diffraction.h5 beside it; name their file with --patterns-file"):
        load_scan(tmp_path / "product.h5")
    with pytest.raises(DataError, match=r"there is no .*none.h5"):
        load_scan(tmp_path / "product.h5", patterns_file=tmp_path / "none.h5")
    for place in ("elsewhere.h5", "diffraction.h5"):
        with h5py.File(tmp_path / "all.h5") as source, h5py.File(tmp_path / place, "w") as file:
            for name in ("patterns", "bad_pixels", "indexes"):
                source.copy(name, file)
    for given in ({"patterns_file": tmp_path / "elsewhere.h5"}, {}):
        loaded = load_scan(tmp_path / "product.h5", **given)
        np.testing.assert_array_equal(loaded.patterns[:], scan.patterns[sorted(keep)])
        np.testing.assert_allclose(loaded.positions, scan.positions[sorted(keep)], atol=1e-9)
    with pytest.raises(DataError, match="patterns without positions"):
        load_scan(tmp_path / "diffraction.h5")
    with h5py.File(tmp_path / "product.h5", "a") as product:
        product["probe_position_indexes"][...] = [20, 21, 22, 23]
    with pytest.raises(DataError, match="No pattern has the index of a position"):
        load_scan(tmp_path / "product.h5")
    with h5py.File(tmp_path / "product.h5", "a") as product:
        product["probe_position_indexes"][...] = 1
    with pytest.raises(DataError, match="a different integer for each"):
        load_scan(tmp_path / "product.h5")


@pytest.mark.parametrize("filter", ["Bitshuffle", "LZ4", "Blosc2", "Zstd"])
def test_compressed_detector_files(tmp_path, patterns, positions, filter, store):
    path = store(cxi(None, positions))
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "entry_1/instrument_1/detector_1/data", data=patterns, chunks=(1, 8, 8), **getattr(hdf5plugin, filter)()
        )
    np.testing.assert_array_equal(load_scan(path).patterns[:], patterns)


def test_external_links_and_virtual_datasets(tmp_path, patterns, positions, store):
    content = cxi(None, positions)
    (tmp_path / "frames").mkdir()
    for number in range(2):
        with h5py.File(tmp_path / "frames" / f"part_{number}.h5", "w") as file:
            file["data"] = patterns[3 * number : 3 * number + 3]
    linked, virtual = store(content, "linked.cxi"), store(content, "virtual.cxi")
    layout = h5py.VirtualLayout(SHAPE, np.uint16)
    for number in range(2):
        source = h5py.VirtualSource(f"frames/part_{number}.h5", "data", (3, 8, 8))
        layout[3 * number : 3 * number + 3] = source
    with h5py.File(virtual, "a") as file:
        file.create_virtual_dataset("entry_1/instrument_1/detector_1/data", layout)
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["a/data"] = patterns
        file["soft"] = h5py.SoftLink("/a/data")
    with h5py.File(linked, "a") as file:
        file["entry_1/instrument_1/detector_1/data"] = h5py.ExternalLink("whole.h5", "/soft")
    for path in (linked, virtual):
        np.testing.assert_array_equal(load_scan(path).patterns[:], patterns)
    (tmp_path / "frames" / "part_1.h5").unlink()
    with pytest.raises(DataError, match=r"links to frames/part_1.h5, which is not there"):
        load_scan(virtual)
    (tmp_path / "whole.h5").unlink()
    with pytest.raises(DataError, match=r"links to whole.h5, which is not there"):
        load_scan(linked)


def test_plain_arrays(patterns, positions):
    metres = positions[:, ::-1] * OBJECT_PIXEL
    geometry = {"wavelength": WAVELENGTH, "distance": DISTANCE, "detector_pixel_size": PIXEL}
    scan = scan_from_arrays(
        patterns.tolist(), metres.tolist(), measurement="counts", unit="metres", order="x-y", **geometry
    )
    assert isinstance(scan, Scan)
    np.testing.assert_allclose(scan.positions, positions)
    np.testing.assert_array_equal(scan.patterns, patterns)
    turned = scan_from_arrays(
        np.fft.ifftshift(patterns, axes=(1, 2)), positions, measurement="counts", fftshift=True, orientation="transpose"
    )
    np.testing.assert_array_equal(turned.patterns, patterns)
    np.testing.assert_array_equal(turned.positions, positions[:, ::-1])
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        lazy = scan_from_arrays(file.create_dataset("a", data=patterns), positions, measurement="counts", fftshift=True)
        np.testing.assert_array_equal(lazy.patterns[:2], np.fft.fftshift(patterns[:2], axes=(1, 2)))
    for changes, message in (
        ({"unit": "metres"}, "--pixel-size"),
        ({"unit": "inches"}, "unit: 'inches' given"),
        ({"order": "y-x"}, "order: 'y-x' given"),
        ({"colour": 1}, "unknown colour"),
        ({"positions": np.zeros(6)}, r"positions: float64 of shape \(6,\)"),
        ({"orientation": "upside-down"}, "orientation: 'upside-down' given, one of none, flip-rows"),
        ({"fftshift": True, "beam_centre": (1, 1)}, "give one"),
    ):
        arguments = {"patterns": patterns, "positions": positions, "measurement": "counts"} | changes
        with pytest.raises(DataError, match=message):
            scan_from_arrays(**arguments)


def test_orientations_are_a_group(positions):
    results = [reorient(positions, name) for name in ORIENTATIONS]
    assert len({result.tobytes() for result in results}) == 8
    for result in results:
        inverse = [name for name in ORIENTATIONS if np.allclose(reorient(result, name), positions)]
        assert len(inverse) == 1


def test_an_orientation_leaves_the_old_object_out(tmp_path, caplog):
    scan = simulated_scan()
    save_scan(scan, tmp_path / "scan.npz")
    loaded = load_scan(tmp_path / "scan.npz", orientation="flip-rows")
    assert loaded.object is None
    assert "is left out" in caplog.text
    np.testing.assert_array_equal(loaded.positions, reorient(scan.positions, "flip-rows"))


def test_unknown_hdf5_says_what_is_in_it(store):
    with pytest.raises(DataError, match="with something in it is of no format"):
        load_scan(store({"something": 1}))
