"""The middle of a large object."""

import numpy as np
import pytest

from ptycho.evaluation.areas import heart


def test_the_heart_is_where_the_coverage_is():
    weight = np.zeros((100, 60))
    weight[60:90, 10:50] = 2.0
    rows, cols = heart(weight, 20)
    assert (rows, cols) == (slice(64, 84), slice(19, 39))
    assert heart(weight[50:, :], 60) == (slice(0, 50), slice(0, 60))


@pytest.mark.parametrize("side", [10, 200])
def test_a_ring_has_no_heart(side):
    distance = np.hypot(*(np.indices((80, 80)) - 40))
    assert heart((distance > 30) & (distance < 39), side) == (slice(0, 80), slice(0, 80))
