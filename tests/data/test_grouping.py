"""Groups of neighbours: who is in them, how many there are, and that chance is seeded."""

import logging
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptycho.data import group_positions
from ptycho.errors import DataError


def points(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 100, (count, 2))


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(9, 40), st.just(2)), elements=st.floats(-100, 100, width=16)),
    st.integers(1, 3),
    st.integers(8, 12),
    st.integers(0, 3),
    st.booleans(),
)
def test_groups_are_distinct_near_neighbours_of_their_seed(positions, gridsize, neighbour_count, seed, oversample):
    groups = group_positions(positions, gridsize, neighbour_count, None, seed, oversample)
    assert groups.dtype == np.int64
    assert groups.shape == (len(positions), gridsize**2)
    np.testing.assert_array_equal(groups[:, 0], np.arange(len(positions)))
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    reach = np.sort(distances, axis=1)[:, min(neighbour_count, len(positions) - 1)]
    for group in groups:
        assert len(set(group.tolist())) == gridsize**2
        assert (distances[group[0], group] <= reach[group[0]] + 1e-12).all()


@pytest.mark.parametrize("oversample", [False, True])
def test_the_seed_decides(oversample):
    arguments = (points(50), 2, 6, 30)
    first = group_positions(*arguments, seed=1, oversample=oversample)
    np.testing.assert_array_equal(first, group_positions(*arguments, seed=1, oversample=oversample))
    assert not np.array_equal(first, group_positions(*arguments, seed=2, oversample=oversample))


def test_fewer_groups_have_different_seed_points():
    groups = group_positions(points(50), 2, n_groups=20, seed=3)
    assert len(set(groups[:, 0].tolist())) == 20
    in_order = group_positions(points(50), 2, n_groups=20, sequential=True)
    assert in_order[:, 0].tolist() == list(range(20))


def test_oversampling_takes_every_seed_equally_often_and_never_the_same_group_twice():
    groups = group_positions(points(20), 2, neighbor_count=6, n_groups=90, oversample=True)
    assert groups.shape == (90, 4)
    assert set(np.bincount(groups[:, 0]).tolist()) == {4, 5}
    assert len({(g[0], *sorted(g[1:])) for g in groups.tolist()}) == 90


def test_oversampling_ends_where_no_choice_is_left(caplog):
    with caplog.at_level(logging.WARNING):
        groups = group_positions(points(10), 2, neighbor_count=5, n_groups=1000, oversample=True)
    assert len(groups) == 10 * math.comb(5, 3)
    assert len({(g[0], *sorted(g[1:])) for g in groups.tolist()}) == len(groups)
    assert "1000 groups asked for, 100 made" in caplog.text


@pytest.mark.parametrize("gridsize", [1, 2])
def test_without_oversampling_there_is_one_group_a_point(caplog, gridsize):
    with caplog.at_level(logging.WARNING):
        groups = group_positions(points(10), gridsize, n_groups=512)
    assert sorted(groups[:, 0].tolist()) == list(range(10))
    assert "512 groups asked for, 10 made" in caplog.text


def test_many_neighbours_are_drawn_without_a_table():
    groups = group_positions(points(60), 4, neighbor_count=45, n_groups=200, oversample=True)
    assert all(len(set(group)) == 16 for group in groups.tolist())


def test_coinciding_points_still_group_with_their_seed():
    groups = group_positions(np.zeros((30, 2)), 2)
    assert groups[:, 0].tolist() == list(range(30))
    assert all(len(set(group)) == 4 for group in groups.tolist())


def test_a_million_points_are_grouped():
    positions = points(1_000_000)
    groups = group_positions(positions, 2, n_groups=100_000)
    spread = np.linalg.norm(positions[groups[:, 1:]] - positions[groups[:, :1]], axis=-1)
    assert spread.max() < 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((points(3), 2), "gridsize 2 groups 4 scan points, but the scan has only 3"),
        ((points(0), 1), "only 0"),
        ((points(30), 3), "neighbor_count: 4 given, but gridsize 3 draws 8"),
        ((points(30), 0), "gridsize: 0 given"),
        ((points(30), 1, 4, 0), "n_groups: 0 given"),
        ((np.zeros(7), 1), "positions: finite"),
        ((np.full((7, 2), np.nan), 1), "positions: finite"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(DataError, match=message):
        group_positions(*arguments)
