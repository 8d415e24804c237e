"""A write that fails leaves nothing but what was there before, as its sentence says, in every format."""

import contextlib
import errno
import os
import resource
import threading
import time

import numpy as np
import pytest

from ptycho.data import save_scan
from ptycho.errors import OutputError
from ptycho.files.locks import hidden_folder
from tests.support import simulated_scan

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
FORMATS = ("scan.npz", "scan.h5", "scan.cxi", "scan.nxs", "scan.zarr")


@pytest.fixture(scope="module")
def scan():
    """Noise, which no compression makes small."""
    made = simulated_scan(M=600, N=32)
    noise = np.random.default_rng(0).integers(0, 60_000, made.patterns.shape).astype(np.float32)
    return made.replace(patterns=noise)


@pytest.mark.parametrize("limit", [10_000, 200_000])
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_a_limit_on_the_size_of_files(scan, name, earlier, limit, tmp_path):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    if earlier:
        save_scan(simulated_scan(M=4, N=16), tmp_path / name)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OutputError, match="nothing was left behind"):
            save_scan(scan, tmp_path / name, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    time.sleep(0.2)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_threads_that_still_write(tmp_path):
    """As Zarr's do: they make their folders anew after the first of them has failed."""

    def goes_on(hidden):
        for number in range(10):
            (hidden / "new" / "c" / str(number)).mkdir(parents=True, exist_ok=True)
            time.sleep(0.01)

    with contextlib.suppress(OSError), hidden_folder(tmp_path) as hidden:
        writer = threading.Thread(target=goes_on, args=(hidden,))
        writer.start()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    writer.join()
    assert not list(tmp_path.iterdir())
