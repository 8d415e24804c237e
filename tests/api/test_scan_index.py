"""`scan[...]`: slices, numbers and masks give a scan, unread where the patterns lie in a file."""

import numpy as np
import pytest

from ptycho.data.lazy import LazyPatterns
from ptycho.errors import DataError
from tests.support import simulated_scan

MASK = np.arange(12) % 3 == 1


@pytest.mark.parametrize(
    "index",
    [slice(0, 5), slice(None, None, -1), slice(-2, None), [3, 1, 3], np.array([7], np.uint8), [-1, 0], MASK],
    ids=str,
)
@pytest.mark.parametrize("lazy", [False, True])
def test_parts_of_a_scan(index, lazy, tmp_path):
    scan = simulated_scan(12, 8)
    chosen = np.arange(12)[index]
    np.save(tmp_path / "patterns.npy", scan.patterns)
    if lazy:
        scan = scan.replace(patterns=np.load(tmp_path / "patterns.npy", mmap_mode="r"))
    part = scan[index]
    assert isinstance(part.patterns, LazyPatterns) is lazy
    np.testing.assert_array_equal(part.counts(), scan.counts()[chosen])
    np.testing.assert_array_equal(part.positions, scan.positions[chosen])
    np.testing.assert_array_equal(part.probe, scan.probe)


@pytest.mark.parametrize(
    "index", [3, [12], [-13], MASK[:5], [0.5], (slice(0, 2), 1), "rows", None, np.ones((2, 2), int)]
)
def test_what_is_no_choice_of_patterns(index):
    with pytest.raises(DataError, match="indices"):
        simulated_scan(12, 8)[index]


def test_a_scan_is_not_iterated_by_number():
    with pytest.raises(TypeError, match="not iterable"):
        list(simulated_scan(12, 8))
