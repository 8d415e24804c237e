r"""From overlapping patches back to one object.

The object is the weighted average :math:`O = \sum_k A_k(w\, o_k) / \sum_k A_k(w)`, where :math:`A_k` places a patch at
its position (:func:`~ptycho.physics.patches.accumulate_patches`) and the window :math:`w` says how far each pixel of a
patch is to be trusted. Numerator and weight use the same window. Where nothing was placed the object is the neutral 1
and the weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ptycho.backends import Array, array_namespace, device, get_backend, to_numpy
from ptycho.backends.windows import add_windows
from ptycho.errors import DataError
from ptycho.physics.checks import array_of, positions_beside, require_together
from ptycho.physics.patches import accumulate_patches, extract_patches, place_patches

__all__ = [
    "Canvas",
    "PartialReassembly",
    "Reassembled",
    "canvas_for",
    "extract_groups",
    "group_canvas_size",
    "merge_groups",
    "merge_partials",
    "reassemble",
    "stitching_window",
    "summed_window",
]

"""Windows, canvases and plans are host arrays, whatever the framework of the patches."""

_AT_ONCE = 1024
"""Positions that are laid down at once where there may be millions."""

_COVERED = 1e-6
"""Weight below this fraction of the largest window value counts as no coverage."""

_STRIP = 256
"""Rows of a canvas that are averaged at once."""


class Reassembled(NamedTuple):
    """An object put together from patches."""

    object: Array
    """(H, W) complex, dimensionless; 1 where nothing was placed."""
    weight: Array
    """(H, W) real, the summed window; 0 where nothing was placed."""
    origin: tuple[float, float]
    """Position (row, col) of pixel [0, 0]: a position p lies on pixel ``p - origin``."""


class PartialReassembly(NamedTuple):
    """The sums of a reassembly over some of the patches, before averaging, so that they can be added to others."""

    total: np.ndarray
    """(H, W) complex128, the sum of the weighted patches."""
    weight: np.ndarray
    """(H, W) float64, the summed window."""
    origin: tuple[float, float]
    """Position (row, col) of pixel [0, 0]; the origins of what is added differ by whole pixels."""


def stitching_window(window: str | Array, size: int, crop: int | None = None) -> np.ndarray:
    """The weight of each pixel of a patch.

    Parameters
    ----------
    window : ``"uniform"`` (1 everywhere), ``"crop"`` (1 on the centre ``crop`` x ``crop`` pixels, 0 elsewhere), or an
        (N, N) array of weights >= 0, for example the probe's intensity. It is scaled to a maximum of 1.
    size : N.
    crop : side of the centre box for ``"crop"``; default N/2.

    Returns
    -------
    (N, N) float64.

    Raises
    ------
    DataError
        The name is unknown, the crop does not fit, or the array has the wrong shape or nothing positive in it.
    """
    if isinstance(window, str):
        if window == "uniform":
            return np.ones((size, size))
        if window != "crop":
            raise DataError(f"window: got {window!r}; expected 'uniform', 'crop' or an (N, N) array.")
        crop = size // 2 if crop is None else crop
        if not 1 <= crop <= size:
            raise DataError(f"crop: got {crop}; expected a centre crop M of 1 to {size} pixels.")
        box = np.zeros((size, size))
        box[_weighted_box(window, size, crop)] = 1.0
        return box
    weights = np.asarray(to_numpy(window), dtype=np.float64)
    usable = weights.shape == (size, size) and np.all(np.isfinite(weights))
    if not usable or weights.min() < 0 or weights.max() <= 0:
        raise DataError(f"window: got shape {weights.shape}; expected ({size}, {size}) weights >= 0, some above 0.")
    return weights / weights.max()


def _weighted_box(window: str | Array, size: int, crop: int | None) -> tuple[slice, slice]:
    """The pixels of a patch that a named window gives any weight; the middle one stays the middle one."""
    if not isinstance(window, str) or window != "crop":
        return slice(0, size), slice(0, size)
    side = size // 2 if crop is None else crop
    first = size // 2 - side // 2
    return slice(first, first + side), slice(first, first + side)


def canvas_for(positions: Array, size: int) -> tuple[tuple[int, int], tuple[float, float]]:
    """Shape and origin of the smallest canvas that holds every patch of ``size`` at ``positions`` (M, 2)."""
    host = np.reshape(np.asarray(to_numpy(positions), dtype=np.float64), (-1, 2))
    if host.shape[0] == 0 or not np.all(np.isfinite(host)):
        raise DataError("positions: expected at least one position, all finite.")
    origin = np.floor(host.min(axis=0)) - size // 2
    extent = np.ceil(host.max(axis=0)) - origin + (size - size // 2)
    return (int(extent[0]), int(extent[1])), (float(origin[0]), float(origin[1]))


def reassemble(
    patches: Array,
    positions: Array,
    window: str | Array = "uniform",
    *,
    crop: int | None = None,
    shape: tuple[int, int] | None = None,
    origin: tuple[float, float] | None = None,
) -> Reassembled:
    """Weighted average of ``patches`` at ``positions``.

    Parameters
    ----------
    patches : (..., N, N) complex.
    positions : (..., 2) real or integer, (row, col) of the patch centres in pixels; with the patches, or numpy's.
    window, crop : see :func:`stitching_window`.
    shape, origin : of the canvas, both or neither; default the smallest that holds every patch.

    Returns
    -------
    Reassembled
        On the namespace and device of ``patches``; differentiable by them. For more patches than memory holds use
        :class:`Canvas`.

    Examples
    --------
    >>> import ptycho
    >>> placed = ptycho.reassemble([[[2 + 0j]], [[4 + 0j]]], [(2, 5), (2, 5)])
    >>> complex(placed.object[0, 0]), placed.origin
    ((3+0j), (2.0, 5.0))
    """
    patches, positions = array_of(patches, "patches"), array_of(positions, "positions")
    xp = array_namespace(patches)
    size = patches.shape[-1]
    if shape is None and origin is None:
        shape, origin = canvas_for(positions, size)
    if shape is None or origin is None:
        raise DataError("shape: expected together with origin; one alone does not say where the canvas lies.")
    backend = get_backend(patches)
    real = xp.real(patches).dtype
    box = _weighted_box(window, size, crop)
    host_weights = stitching_window(window, size, crop)[box]
    weights = xp.astype(backend.asarray(host_weights, device=device(patches)), real)
    patches = patches[..., box[0], box[1]]
    positions = positions_beside(patches, positions)
    on_canvas = xp.stack([positions[..., axis] - float(origin[axis]) for axis in (0, 1)], axis=-1)
    lit = patches if np.all(host_weights == 1.0) else patches * xp.astype(weights, patches.dtype)
    total = accumulate_patches(lit, on_canvas, shape)
    weight = accumulate_patches(xp.broadcast_to(weights, tuple(patches.shape)), on_canvas, shape)
    return Reassembled(_average(xp, total, weight), weight, origin)


class Canvas:
    """A streaming :func:`reassemble`: patches are added chunk by chunk, and only the canvas is held.

    The canvas lives on the host in double precision, so that the result does not depend on the chunks or their order
    beyond rounding. Adding a chunk costs O(N^2) per patch, whatever the size of the canvas.

    Parameters
    ----------
    shape : (H, W) pixels.
    origin : position (row, col) of pixel [0, 0].
    size : N, the side of the patches.
    window, crop : see :func:`stitching_window`.

    Examples
    --------
    >>> import ptycho
    >>> canvas = ptycho.Canvas((3, 4), (0, 0), 1)
    >>> canvas.add([[[2 + 0j]], [[4 + 0j]]], [(2, 3), (2, 3)])
    >>> complex(canvas.result().object[2, 3])
    (3+0j)
    """

    def __init__(
        self,
        shape: tuple[int, int],
        origin: tuple[float, float],
        size: int,
        window: str | Array = "uniform",
        crop: int | None = None,
    ) -> None:
        self.shape, self.origin, self.size = shape, (float(origin[0]), float(origin[1])), size
        self._box = _weighted_box(window, size, crop)
        self._window = stitching_window(window, size, crop)[self._box]
        self._margin = self._window.shape[-1] + 1
        padded = (shape[0] + 2 * self._margin, shape[1] + 2 * self._margin)
        self._total, self._weight = np.zeros(padded, dtype=np.complex128), np.zeros(padded)

    @classmethod
    def covering(cls, positions: Array, size: int, window: str | Array = "uniform", crop: int | None = None) -> Canvas:
        """The smallest canvas that holds every patch of ``size`` at ``positions`` (M, 2)."""
        shape, origin = canvas_for(positions, size)
        return cls(shape, origin, size, window, crop)

    def add(self, patches: Array, positions: Array) -> None:
        """Place ``patches`` (..., N, N) at ``positions`` (..., 2); any framework's arrays.

        Raises
        ------
        DataError
            The shapes do not belong together, or the patches are not of the canvas's size.
        """
        patches, positions = array_of(patches, "patches"), array_of(positions, "positions")
        stack = np.reshape(to_numpy(patches), (-1, *patches.shape[-2:]))
        where = np.reshape(np.asarray(to_numpy(positions), dtype=np.float64), (-1, 2))
        if stack.shape[1:] != (self.size, self.size) or stack.shape[0] != where.shape[0]:
            raise DataError(
                f"patches: got shape {tuple(patches.shape)} for positions of shape {tuple(positions.shape)}; "
                f"expected (..., {self.size}, {self.size}) and (..., 2) with the same leading axes."
            )
        lit = stack[:, self._box[0], self._box[1]]
        if not np.all(self._window == 1.0):
            lit = lit * self._window
        windows, corners, shares = place_patches(lit, where - np.asarray(self.origin), self.shape)
        add_windows(self._total, windows, corners, shares)
        add_windows(self._weight, np.broadcast_to(self._window, lit.shape), corners, shares)

    def partial(self) -> PartialReassembly:
        """The sums so far; copies."""
        total, weight = self._inner()
        return PartialReassembly(total.copy(), weight.copy(), self.origin)

    def add_partial(self, part: PartialReassembly) -> None:
        """Add the sums of another canvas, which must lie within this one.

        Raises
        ------
        DataError
            It does not, or its pixels lie between these.
        """
        _lay(part, *self._inner(), self.origin)

    def result(self, dtype: str = "complex64") -> Reassembled:
        """The average so far; numpy arrays, ``dtype`` for the object and its real counterpart for the weight."""
        image, (total, light) = np.empty(self.shape, dtype), self._inner()
        weight = np.empty(self.shape, image.real.dtype)
        for first in range(0, self.shape[0], _STRIP):
            rows = slice(first, first + _STRIP)
            image[rows], weight[rows] = _average(np, total[rows], light[rows]), light[rows]
        return Reassembled(image, weight, self.origin)

    def _inner(self) -> tuple[np.ndarray, np.ndarray]:
        """The sums without the margin into which patches may reach."""
        inner = tuple(slice(self._margin, self._margin + n) for n in self.shape)
        return self._total[inner], self._weight[inner]


def merge_partials(parts: Sequence[PartialReassembly]) -> PartialReassembly:
    """The sum of partial reassemblies, on the smallest rectangle that holds them."""
    corners = np.asarray([part.origin for part in parts])
    ends = corners + np.asarray([part.weight.shape for part in parts])
    origin = corners.min(axis=0)
    rows, columns = (int(n) for n in ends.max(axis=0) - origin)
    total, weight = np.zeros((rows, columns), dtype=np.complex128), np.zeros((rows, columns))
    for part in parts:
        _lay(part, total, weight, origin)
    return PartialReassembly(total, weight, (float(origin[0]), float(origin[1])))


def _lay(part: PartialReassembly, total: np.ndarray, weight: np.ndarray, origin: Any) -> None:
    """Add a part to sums whose pixel [0, 0] lies at ``origin``."""
    corner = np.asarray(part.origin) - np.asarray(origin)
    first = np.astype(np.round(corner), np.int64)
    end = first + np.asarray(part.weight.shape)
    if not np.all(first == corner) or first.min() < 0 or np.any(end > np.asarray(weight.shape)):
        raise DataError(
            f"origin: a part of shape {part.weight.shape} at {part.origin} does not lie on the pixels of this canvas."
        )
    place = slice(int(first[0]), int(end[0])), slice(int(first[1]), int(end[1]))
    total[place] += part.total
    weight[place] += part.weight


def summed_window(window: np.ndarray, positions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Weight of every pixel of an image: a window laid down at every position; of a probe's intensity, the dose.

    Parameters
    ----------
    window : (N, N) real, on the host.
    positions : (M, 2) of its centres, (row, col) pixels of the image.
    shape : (H, W) of the image.

    Returns
    -------
    (H, W) float64.
    """
    margin = window.shape[-1] + 1
    padded = np.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin))
    wide = np.astype(window, np.float64)
    for first in range(0, positions.shape[0], _AT_ONCE):
        some = positions[first : first + _AT_ONCE]
        stack = np.broadcast_to(wide, (some.shape[0], *window.shape))
        add_windows(padded, *place_patches(stack, some, shape))
    return padded[margin : margin + shape[0], margin : margin + shape[1]]


def group_canvas_size(relative: Array, size: int, gridsize: int, offset: int = 4, jitter: int = 10) -> int:
    """Side of a group's own canvas: ``N + (g - 1) * offset + jitter``, or more when the group's spread needs it.

    Parameters
    ----------
    relative : (..., C, 2) host array, positions minus their group's centre, pixels.
    size, gridsize : N and g.
    offset, jitter : pixels; PtychoPINN's nominal grid step and the largest expected deviation from it.
    """
    if gridsize == 1:
        return size
    spread = float(np.max(np.abs(relative))) if relative.size else 0.0
    needed = size + 2 * (math.ceil(spread) + 1)
    side = max(size + (gridsize - 1) * offset + jitter, needed)
    return side + side % 2


def merge_groups(patches: Array, relative: Array, side: int, window: Array | None = None) -> Array:
    """Average the C patches of every group into the group's own object; groups never mix.

    Parameters
    ----------
    patches : (B, C, N, N) complex.
    relative : (B, C, 2) real or integer, position minus the group's centre, (row, col) pixels; with the patches, or
        numpy's.
    side : S, from :func:`group_canvas_size`.
    window : (N, N) real weights on the same device, strictly positive somewhere; default uniform.

    Returns
    -------
    (B, S, S) complex; the group's centre lies on pixel ``S//2``; 1 where no patch lies.
    """
    xp = require_together(patches=patches, window=window)
    groups = patches.shape[0]
    stacked = _stacked(xp, positions_beside(patches, relative, "relative"), side)
    real = xp.real(patches).dtype
    if window is None:
        window = xp.ones(tuple(patches.shape[-2:]), dtype=real, device=device(patches))
    shape = (groups * side, side)
    total = accumulate_patches(patches * xp.astype(window, patches.dtype), stacked, shape)
    weight = accumulate_patches(xp.broadcast_to(window, tuple(patches.shape)), stacked, shape)
    return xp.reshape(_average(xp, total, weight), (groups, side, side))


def extract_groups(objects: Array, relative: Array, size: int) -> Array:
    """Read the C patches of every group back from the group's object: the geometry of :func:`merge_groups`.

    Parameters
    ----------
    objects : (B, S, S) complex.
    relative : (B, C, 2) real or integer, (row, col) pixels; with the objects, or numpy's.
    size : N.

    Returns
    -------
    (B, C, N, N) complex.
    """
    xp = array_namespace(objects)
    groups, side, _ = objects.shape
    tall = xp.reshape(objects, (groups * side, side))
    return extract_patches(tall, _stacked(xp, positions_beside(objects, relative, "relative", "objects"), side), size)


def _stacked(xp: Array, relative: Array, side: int) -> Array:
    """Positions of the groups' patches when the B canvases stand below each other in one tall image."""
    groups = relative.shape[0]
    below = xp.arange(groups, dtype=relative.dtype, device=device(relative)) * float(side)
    rows = relative[..., 0] + (below + float(side // 2))[:, None]
    return xp.stack([rows, relative[..., 1] + float(side // 2)], axis=-1)


def _average(xp: Array, total: Array, weight: Array) -> Array:
    """``total / weight`` where there is weight, 1 elsewhere; finite gradients throughout."""
    covered = weight > _COVERED
    safe = xp.where(covered, weight, xp.ones_like(weight))
    return xp.where(covered, total / xp.astype(safe, total.dtype), xp.ones_like(total))
