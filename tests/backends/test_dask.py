"""Dask arrays through the same core: a stack of patches in chunks stays lazy and gives numpy's result."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.backends import array_namespace, get_backend, to_numpy
from ptycho.physics.reassembly import Canvas, canvas_for, reassemble, stitching_window
from tests.backends.cases import CASES, Draw, Sizes

dask_array = pytest.importorskip("dask.array")

pytestmark = [
    # Dask finds out a result's dtype by casting an empty array of complex numbers.
    pytest.mark.filterwarnings("ignore:Casting complex values to real discards the imaginary part"),
]


def chunked(values):
    """Stacks two at a time along their first axis, images whole."""
    return dask_array.from_array(values, chunks=(2, *values.shape[1:]) if values.ndim > 2 else -1)


def lazy(value) -> bool:
    return isinstance(value, dask_array.Array)


@pytest.fixture
def stack():
    draw = Draw(3, Sizes(K=9, N=8))
    return draw.patches(), draw.positions(9, low=4, high=40)


class TestReassembly:
    @pytest.mark.parametrize("where", ["host", "dask"])
    def test_a_chunked_stack(self, stack, where):
        patches, positions = stack
        wanted = reassemble(patches, positions)
        found = reassemble(chunked(patches), positions if where == "host" else chunked(positions))
        assert lazy(found.object)
        assert lazy(found.weight)
        assert found.origin == wanted.origin
        np.testing.assert_allclose(to_numpy(found.object), wanted.object, rtol=1e-12)
        np.testing.assert_allclose(to_numpy(found.weight), wanted.weight, rtol=1e-12)

    def test_chunk_by_chunk_in_the_memory_of_one(self, stack):
        patches, positions = stack
        blocks = chunked(patches)
        canvas = Canvas.covering(chunked(positions), 8, chunked(np.ones((8, 8))))
        first = 0
        for k in range(blocks.numblocks[0]):
            block = blocks.blocks[k]
            canvas.add(block, positions[first : first + block.shape[0]])
            first += block.shape[0]
        np.testing.assert_allclose(
            canvas.result("complex128").object, reassemble(patches, positions).object, rtol=1e-12
        )

    def test_plans_are_on_the_host(self, stack):
        assert canvas_for(chunked(stack[1]), 8) == canvas_for(stack[1], 8)
        assert isinstance(stitching_window(chunked(np.ones((8, 8))), 8), np.ndarray)


def test_the_seam_knows_dask(stack):
    lender = get_backend(chunked(stack[0]))
    assert lender.name == "dask"
    assert lender.xp is array_namespace(chunked(stack[0]))


@pytest.mark.parametrize("case", [case for case in CASES if "dask" in case.row.runs], ids=lambda case: case.name)
def test_as_numpy(case):
    host = case.arrays(Draw(0))
    found = case({name: chunked(values) for name, values in host.items()})
    for ours, wanted in zip(found, case(host), strict=True):
        if type(wanted) is not float:
            assert lazy(ours)
            assert ours.dtype == wanted.dtype
        np.testing.assert_allclose(np.asarray(ours), wanted, rtol=1e-10, atol=1e-12)
