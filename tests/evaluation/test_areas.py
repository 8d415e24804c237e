"""The middle of a large object."""

import numpy as np
import pytest

from ptycho.evaluation.areas import best_covered_box


def test_the_heart_is_in_the_middle_of_what_is_covered():
    weight = np.zeros((400, 240))
    weight[240:360, 40:200] = 2.0
    rows, cols = best_covered_box(weight, 80)
    assert weight[rows, cols].shape == (80, 80)
    assert weight[rows, cols].all()
    assert abs(rows.start + 40 - 300) <= 5
    assert abs(cols.start + 40 - 120) <= 5
    assert best_covered_box(np.broadcast_to(True, (1000, 50)), 100) == (slice(450, 550), slice(0, 50))


@pytest.mark.parametrize("shape", [(50, 60), (3, 200)])
def test_a_small_object_is_all_heart(shape):
    assert best_covered_box(np.ones(shape), 200) == (slice(0, shape[0]), slice(0, shape[1]))


def test_the_heart_of_a_ring_lies_on_it():
    distance = np.hypot(*(np.indices((320, 320)) - 160))
    ring = (distance > 120) & (distance < 150)
    assert ring[best_covered_box(ring, 40)].mean() > 0.7
