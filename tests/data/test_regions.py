"""Compact regions of a scan: as dense as the scan, spread over the field."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from ptycho.data.regions import compact_chunks, compact_regions, compact_runs


def grid(side, step=5.0):
    rows, columns = np.mgrid[:side, :side]
    return np.stack([rows.ravel(), columns.ravel()], axis=-1) * step


@pytest.mark.parametrize("at_most", [100, 2048, 9000])
def test_regions_are_as_dense_as_the_scan(at_most):
    positions = grid(200)
    chosen = compact_regions(positions, at_most, seed=3)
    assert at_most / 2 < chosen.size <= at_most
    assert (np.diff(chosen) > 0).all()
    nearest = cKDTree(positions[chosen]).query(positions[chosen], k=5)[0][:, 1:]
    inside = np.isclose(nearest, 5.0).all(axis=1)
    assert inside.mean() > (0.55 if at_most == 100 else 0.85)
    again, other = (compact_regions(positions, at_most, seed) for seed in (3, 4))
    np.testing.assert_array_equal(again, chosen)
    assert not np.array_equal(other, chosen)


def test_many_regions_see_many_parts_of_the_field():
    positions = grid(1000)
    chosen = positions[compact_regions(positions, 32768)]
    quarters = (chosen > 2500) @ [1, 2]
    assert set(np.unique(quarters)) == {0, 1, 2, 3}


def test_a_scan_that_is_small_enough_is_taken_whole():
    np.testing.assert_array_equal(compact_regions(grid(4), 16), np.arange(16))


@given(st.integers(1, 300), st.integers(1, 80), st.integers(1, 9))
def test_chunks_hold_every_point_once(count, wanted, unit):
    positions = np.random.default_rng(count).uniform(0, 50, (count, 2))
    chunks = compact_chunks(positions, wanted, unit)
    np.testing.assert_array_equal(np.sort(np.concatenate(chunks)), np.arange(count))
    sizes = [chunk.size for chunk in chunks]
    assert len(chunks) == min(wanted, -(-count // unit))
    assert sum(size % unit > 0 for size in sizes) <= 1
    assert max(sizes) - min(sizes) <= 2 * unit
    assert all((np.diff(chunk) > 0).all() for chunk in chunks)


def test_chunks_are_compact_and_follow_their_neighbours():
    positions = grid(64)
    chunks = [positions[chunk] for chunk in compact_chunks(positions, 16)]
    assert len(chunks) == 16
    assert all((np.ptp(chunk, axis=0) == 75).all() for chunk in chunks)  # squares of 16 x 16
    pairs = [np.concatenate(pair) for pair in zip(chunks[::2], chunks[1::2], strict=True)]
    assert all(sorted(np.ptp(pair, axis=0)) == [75, 155] for pair in pairs)


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 80), st.integers(1, 9))
def test_runs_are_of_two_by_two_chunks(count, wanted, at_most, unit):
    positions = np.random.default_rng(count).uniform(0, 50, (count, 2))
    runs = compact_runs(positions, wanted, at_most, unit)
    assert len(runs) == min(wanted, -(-count // unit))
    points = np.concatenate([chunk for run in runs for chunk in run])
    np.testing.assert_array_equal(np.sort(points), np.arange(count))
    assert all(chunk.size < at_most + unit for run in runs for chunk in run)
