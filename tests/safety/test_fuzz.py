"""Every loader, on files that chance has made: what comes is content or one of the library's own sentences."""

import contextlib
import io
import json
import os
import pickle
import pickletools
import warnings
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptycho.config import TrainingConfig, load_config
from ptycho.data import load_scan
from ptycho.data.readers.registry import available_readers
from ptycho.errors import ConfigError, PtychoError
from ptycho.model.importers.keras_models import network_of_keras
from ptycho.model.importers.plain_pickle import read_plain_pickle
from ptycho.model.importers.torch_models import network_of_state
from tests.safety.samples import LOADERS
from tests.safety.test_malice import rewritten

EXAMPLES = int(os.environ.get("PTYCHO_FUZZ_EXAMPLES", "40"))
"""Of every test; deterministic, so more find more."""

fuzzed = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning",  # numbers that chance has made overflow
    "ignore::numpy.exceptions.ComplexWarning",
    "ignore::UserWarning:zipfile",
)
HEADS = [
    b"",
    b"PK\x03\x04",
    b"\x89HDF\r\n\x1a\n",
    b"BZh9",
    b"\x80\x04",
    b"{",
    b"MATLAB 7.3 MAT-file",
    b"\x93NUMPY\x01\x00",
]


@st.composite
def damages(draw):
    """What is done to a file: a list of (kind, where as a fraction, bytes)."""
    kind = st.sampled_from(["replace", "insert", "delete", "swap", "repeat"])
    where = st.floats(0, 1, exclude_max=True)
    return draw(st.lists(st.tuples(kind, where, where, st.binary(min_size=1, max_size=16)), min_size=1, max_size=4))


def damaged(content, changes):
    changed = bytearray(content)
    for kind, where, other, data in changes:
        at, from_ = int(where * len(changed)), int(other * len(changed))
        if kind == "replace":
            changed[at : at + len(data)] = data
        elif kind == "insert":
            changed[at:at] = data
        elif kind == "delete":
            del changed[at : at + len(data) ** 2]
        elif kind == "swap":
            changed[at : at + 64], changed[from_ : from_ + 64] = changed[from_ : from_ + 64], changed[at : at + 64]
        else:
            changed[at:at] = changed[from_ : from_ + 256]
    return bytes(changed)


def content_or_sentence(load, *arguments):
    """Call a loader; whatever it raises has to be the library's own, in one line."""
    try:
        return load(*arguments)
    except PtychoError as error:
        refusal = str(error)
    assert refusal
    assert "\n" not in refusal
    return None


@pytest.mark.parametrize("name", [name for name in LOADERS if name != "zarr"])
def test_damaged_files(name, sample, tmp_path, watch):
    whole = sample(name)
    path = tmp_path / whole.path.name

    @fuzzed
    @given(damages())
    def check(changes):
        path.write_bytes(damaged(whole.whole, changes))
        with watch.watching():
            content_or_sentence(whole.loader.load, path)

    check()


def test_damaged_stores(sample, tmp_path, watch):
    """A Zarr store, one of whose files is damaged."""
    whole = sample("zarr")
    files = {str(path.relative_to(whole.path)): path.read_bytes() for path in whole.path.rglob("*") if path.is_file()}
    store = tmp_path / whole.path.name
    for name, content in files.items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(content)

    @fuzzed
    @given(st.sampled_from(sorted(files)), damages())
    def check(name, changes):
        (store / name).write_bytes(damaged(files[name], changes))
        with watch.watching():
            content_or_sentence(whole.loader.load, store)
        (store / name).write_bytes(files[name])

    check()
    assert whole.loader.load(store) == whole.good


@pytest.mark.parametrize("format", [None, *available_readers()])
def test_files_of_nothing(format, tmp_path, watch):
    """Bytes of no meaning, behind what files begin with, under the names of every format."""

    @fuzzed
    @given(
        st.sampled_from(HEADS),
        st.binary(max_size=200),
        st.sampled_from([".npz", ".h5", ".cxi", ".npz.bz2", ".mat", ""]),
    )
    def check(head, body, ending):
        path = tmp_path / f"scan{ending}"
        path.write_bytes(head + body)
        with watch.watching():
            assert content_or_sentence(lambda: load_scan(path, format=format)) is None

    check()


numbers = st.sampled_from([np.uint16, np.float32, np.float64, np.complex64, np.int8, bool, "U5", "S3"])
shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)


@st.composite
def arrays(draw):
    """An array of any shape and kind, sometimes with numbers that are none."""
    dtype, shape = np.dtype(draw(numbers)), draw(shapes)
    if dtype.kind in "US":
        return np.full(shape, draw(st.sampled_from(["", "{}", "[1]", "x", '{"format": "ptychopinn-scan"}'])), dtype)
    fill = draw(st.sampled_from([0, 1, -1, 7, np.nan, np.inf, 1e300]))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.full(shape, fill).astype(dtype)


@pytest.mark.parametrize("name", ["ptychopinn-npz", "ptychodus-npz", "tike-npz", "result npz", "state"])
def test_arrays_of_any_kind_in_an_npz(name, sample, tmp_path, watch):
    whole = sample(name)
    with zipfile.ZipFile(whole.path) as archive:
        members = archive.namelist()

    @fuzzed
    @given(st.dictionaries(st.sampled_from(members), st.none() | arrays(), min_size=1, max_size=3))
    def check(changes):
        def change(member, data):
            if member not in changes or changes[member] is None:
                return None if member in changes else data
            stream = io.BytesIO()
            np.lib.format.write_array(stream, changes[member])
            return stream.getvalue()

        path = tmp_path / whole.path.name
        path.write_bytes(rewritten(whole.whole, change))
        with watch.watching():
            content_or_sentence(whole.loader.load, path)

    check()


@pytest.mark.parametrize("name", ["cxi", "nexus", "ptychodus-hdf5", "ptychoshelves", "ptyd", "result hdf5"])
def test_arrays_of_any_kind_in_an_hdf5_file(name, sample, tmp_path, watch):
    whole, nodes = sample(name), []
    with h5py.File(whole.path) as file:
        file.visit(nodes.append)

    @fuzzed
    @given(st.dictionaries(st.sampled_from(nodes), st.none() | arrays(), min_size=1, max_size=3))
    def check(changes):
        path = tmp_path / whole.path.name
        path.write_bytes(whole.whole)
        with h5py.File(path, "r+") as file:
            for node, values in changes.items():
                if node in file:
                    del file[node]
                parent = node.rpartition("/")[0]
                if values is not None and (not parent or isinstance(file.get(parent), h5py.Group)):
                    file[node] = values.astype("S") if values.dtype.kind == "U" else values
        with watch.watching():
            content_or_sentence(whole.loader.load, path)

    check()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("member", ["manifest.json", "config.json", "units.json"])
def test_any_json_in_a_bundle(member, sample, tmp_path, watch):
    from tests.model.test_bundle import resealed

    whole = sample("bundle")
    with zipfile.ZipFile(whole.path) as archive:
        known = json.loads(archive.read(member))

    @fuzzed
    @given(plain | st.dictionaries(st.sampled_from(sorted(known)), plain).map(lambda changes: {**known, **changes}))
    def check(value):
        path = tmp_path / "wts.h5.zip"
        resealed(whole.path, path, {member: json.dumps(value).encode()})
        if member == "manifest.json":
            path.write_bytes(rewritten(whole.whole, lambda n, d: json.dumps(value).encode() if n == member else d))
        with watch.watching():
            content_or_sentence(whole.loader.load, path)

    check()


OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
WORDS = [
    *(f"c{name}\n".encode() for name in ("numpy\ndtype", "numpy._core.multiarray\n_reconstruct", "os\nsystem")),
    *(f"c{name}\n".encode() for name in ("collections\nOrderedDict", "dill._dill\n_create_array", "_codecs\nencode")),
    *(b"X\x02\x00\x00\x00f4", b"C\x04abcd", b"K\x01", b"h\x00", b"q\x00"),
]


@settings(max_examples=10 * EXAMPLES)
@given(st.lists(st.sampled_from(WORDS) | st.sampled_from(OPCODES), max_size=25))
def test_any_pickle(parts):
    content_or_sentence(read_plain_pickle, b"\x80\x04" + b"".join(parts) + b".", "params.dill")


@fuzzed
@given(plain)
def test_any_pickled_value_comes_back(value):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        back = read_plain_pickle(pickle.dumps(value, protocol), "params.dill")
        assert repr(back) == repr(value)


def test_any_settings_of_an_archive(sample, tmp_path, watch):
    whole = sample("import torch")
    names = ["N", "gridsize", "amp_activation", "nphotons", "probe", "intensity_scale", "object.big", "probe_scale"]

    @fuzzed
    @given(st.dictionaries(st.sampled_from(names), plain | st.sampled_from([64, 1, 2, 128]) | arrays(), min_size=1))
    def check(changes):
        params = pickle.dumps({"N": 64, "gridsize": 1, "nphotons": 1e5} | changes)
        path = tmp_path / "wts.h5.zip"
        changed = rewritten(
            whole.whole, lambda n, d: params if n.endswith("params.dill") else d, (), zipfile.ZIP_STORED
        )
        path.write_bytes(changed)
        with watch.watching():
            content_or_sentence(whole.loader.load, path)

    check()


def test_any_wiring_of_a_keras_model(sample, watch):
    """The configuration with some of its values exchanged for others of it, or for anything."""
    whole = sample("import keras")
    with zipfile.ZipFile(whole.path) as archive:
        data = archive.read("diffraction_to_obj/model.keras")
    with zipfile.ZipFile(io.BytesIO(data)) as model:
        config = model.read("config.json").decode()
    names = [entry["name"] for entry in json.loads(config)["config"]["layers"]]

    def places(value, path=()):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            yield (*path, key)
            yield from places(inner, (*path, key))

    found = list(places(json.loads(config)))

    @fuzzed
    @given(st.lists(st.tuples(st.sampled_from(found), plain | st.sampled_from(names)), min_size=1, max_size=4))
    def check(changes):
        value = json.loads(config)
        for place, new in changes:
            target = value
            try:
                for key in place[:-1]:
                    target = target[key]
                target[place[-1]] = new
            except (TypeError, LookupError):
                continue
        text = json.dumps(value).encode()
        changed = rewritten(data, lambda n, d: text if n == "config.json" else d, (), zipfile.ZIP_STORED)
        with watch.watching():
            content_or_sentence(network_of_keras, changed, "model.keras")

    check()


@fuzzed
@given(
    st.dictionaries(
        st.sampled_from(
            [
                f"model.autoencoder.{part}.weight"
                for part in ("encoder.blocks.0.conv1", "encoder.blocks.0.bn1", "decoder_amp.amp.conv1")
            ]
        ),
        arrays(),
    )
)
def test_any_state_dictionary(state):
    content_or_sentence(network_of_state, state, "model.pth")


@fuzzed
@given(st.text(max_size=60) | plain.map(lambda value: json.dumps(value)))
def test_any_configuration(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(ConfigError):
        load_config(TrainingConfig, path)
