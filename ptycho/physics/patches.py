r"""Patches of an image at sub-pixel positions, and the exact adjoint of their extraction.

A patch of size N at position p (row, col of its centre) covers rows ``p - N//2 ... p - N//2 + N - 1``: its pixel
``N//2`` lies on p. Fractions are interpolated bilinearly; a neighbour outside the image counts as 0. Both directions
cost O(N^2) per patch, and :math:`\langle E o, p\rangle = \langle o, E^* p\rangle` to rounding.

The plan, four places and their weights for each patch, is shared by both directions; the two window primitives of the
backend apply it.
"""

from __future__ import annotations

import numpy as np

from ptycho.backends import Array, array_namespace, device, get_backend
from ptycho.backends.windows import gather_windows
from ptycho.errors import DataError
from ptycho.physics.checks import array_of, positions_beside

__all__ = ["accumulate_patches", "extract_patches", "place_patches", "read_patches"]


def extract_patches(image: Array, positions: Array, size: int) -> Array:
    """Patches of ``image`` centred at ``positions``.

    Parameters
    ----------
    image : (H, W) real or complex; whole numbers become float32. A list of lists is taken as a numpy array.
    positions : (..., 2) real or integer, (row, col) in pixels of the image; of the image's framework, numpy's or a
        list.
    size : N, the side of a patch in pixels.

    Returns
    -------
    (..., N, N) of the image's dtype, namespace and device. Differentiable by ``image`` and by ``positions``.

    Raises
    ------
    DataError
        ``image`` is not two-dimensional, ``positions`` does not end in an axis of length 2 or is of another framework
        or on another device than the image, or ``size`` < 1.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> image = np.arange(64.0).reshape(8, 8)
    >>> ptycho.extract_patches(image, [(4, 4)], 2)
    array([[[27., 28.],
            [35., 36.]]])
    """
    image, positions = array_of(image, "image"), array_of(positions, "positions")
    if image.ndim != 2:
        raise DataError(f"image: got shape {tuple(image.shape)}; expected (H, W).")
    xp = array_namespace(image)
    image = _widened(xp, image)
    corners, weights, lead = _plan(image, positions, size, tuple(image.shape), "image")
    patches = get_backend(image).gather_windows(_pad(xp, image, size + 1, size + 1), corners, weights, size)
    return xp.reshape(patches, (*lead, size, size))


def read_patches(image: np.ndarray, positions: np.ndarray, size: int) -> np.ndarray:
    """:func:`extract_patches` of a numpy image without padding it: the cost does not grow with the image.

    Parameters
    ----------
    image : (H, W) floating or complex.
    positions : (..., 2) real, pixels of the image.
    size : N. Where a patch reaches beyond the image, the image is copied with a margin, as in :func:`extract_patches`.

    Returns
    -------
    (..., N, N) of the image's dtype.
    """
    corners, shares, lead = _plan(image, positions, size, image.shape, "image")
    corners = corners - (size + 1)
    inside = np.clip(corners, 0, np.asarray(image.shape) - size)
    if min(image.shape) < size or np.any(shares[np.any(corners != inside, axis=-1)] != 0.0):
        return extract_patches(image, positions, size)
    return np.reshape(gather_windows(image, inside, shares, size), (*lead, size, size))


def accumulate_patches(patches: Array, positions: Array, shape: tuple[int, int]) -> Array:
    """Sum of ``patches`` at ``positions`` on an image of zeros: the exact adjoint of :func:`extract_patches`.

    Parameters
    ----------
    patches : (..., N, N) real or complex; whole numbers become float32. Nested lists are taken as a numpy array.
    positions : (..., 2) real or integer, (row, col) of the patch centres in pixels of the image; of the patches'
        framework, numpy's or a list.
    shape : (H, W) of the image. What falls outside is dropped, as the adjoint demands.

    Returns
    -------
    (H, W) of the patches' dtype, namespace and device. Differentiable by ``patches`` and by ``positions``.

    Raises
    ------
    DataError
        The leading axes of ``patches`` and ``positions`` differ, a shape is not of the form above, or the positions are
        of another framework or on another device.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> patches = np.ones((2, 4, 4))
    >>> float(ptycho.accumulate_patches(patches, [(4, 4), (5, 5)], (10, 10)).sum())
    32.0
    """
    patches, positions = array_of(patches, "patches"), array_of(positions, "positions")
    flat, corners, weights = place_patches(patches, positions, shape)
    margin = patches.shape[-1] + 1
    padded_shape = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    padded = get_backend(patches).scatter_windows(flat, corners, weights, padded_shape)
    return padded[margin : margin + shape[0], margin : margin + shape[1]]


def place_patches(patches: Array, positions: Array, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
    """The windows that :func:`accumulate_patches` adds and their places, for callers that sum in place.

    Parameters
    ----------
    patches, positions, shape : as for :func:`accumulate_patches`.

    Returns
    -------
    windows : (K, N, N), the patches.
    corners : (K, 4, 2) integer, first pixels of the four places of each on the image with a margin of N + 1 on every
        side.
    weights : (K, 4) real, of each place; they sum to 1.
    """
    size = patches.shape[-1]
    if patches.ndim < 2 or patches.shape[-2] != size or tuple(patches.shape[:-2]) != tuple(positions.shape[:-1]):
        raise DataError(
            f"patches: got shape {tuple(patches.shape)} for positions of shape {tuple(positions.shape)}; "
            "expected (..., N, N) and (..., 2) with the same leading axes."
        )
    xp = array_namespace(patches)
    patches = _widened(xp, patches)
    corners, weights, _ = _plan(patches, positions, size, shape, "patches")
    return xp.reshape(patches, (-1, size, size)), corners, weights


def _widened(xp: Array, values: Array) -> Array:
    """Integers as float32, since interpolated values are fractions."""
    return xp.astype(values, xp.float32) if xp.isdtype(values.dtype, ("integral", "bool")) else values


def _plan(
    like: Array, positions: Array, size: int, shape: tuple[int, int], name: str
) -> tuple[Array, Array, tuple[int, ...]]:
    """Corners (K, 4, 2) on the padded image, weights (K, 4) of the patches' real dtype, leading axes."""
    if size < 1:
        raise DataError(f"size: got {size}; expected the side of a patch, at least 1 pixel.")
    positions = positions_beside(like, positions, beside=name)
    xp = array_namespace(like)
    lead = tuple(positions.shape[:-1])
    corner = xp.reshape(positions, (-1, 2)) - float(size // 2)
    whole = xp.floor(corner)
    fraction = xp.astype(
        corner - whole, xp.real(like).dtype if xp.isdtype(like.dtype, "complex floating") else like.dtype
    )
    margin = size + 1
    row, col = (xp.clip(xp.astype(whole[:, axis], xp.int32), -margin, shape[axis]) + margin for axis in (0, 1))
    down, right = fraction[:, 0], fraction[:, 1]
    corners = xp.stack([xp.stack([r, c], axis=-1) for r in (row, row + 1) for c in (col, col + 1)], axis=1)
    weights = xp.stack([r * c for r in (1.0 - down, down) for c in (1.0 - right, right)], axis=-1)
    return corners, weights, lead


def _pad(xp: Array, image: Array, rows: int, cols: int) -> Array:
    """``image`` with ``rows`` and ``cols`` zeros on either side of its two axes."""
    height, width = image.shape
    side = xp.zeros((height, cols), dtype=image.dtype, device=device(image))
    wide = xp.concat([side, image, side], axis=1)
    top = xp.zeros((rows, width + 2 * cols), dtype=image.dtype, device=device(image))
    return xp.concat([top, wide, top], axis=0)
