r"""Patches of an image at sub-pixel positions, and the exact adjoint of taking them.

A patch of size N at position p (row, col of its centre) covers rows ``p - N//2 ... p - N//2 + N - 1``: its pixel
``N//2`` lies on p. Fractions are interpolated bilinearly; a neighbour outside the image counts as 0. Both directions
cost O(N^2) per patch, and :math:`\langle E o, p\rangle = \langle o, E^* p\rangle` to rounding.

The plan (corners and fractions) is shared by both directions; the two window primitives of the backend apply it.
"""

from __future__ import annotations

from ptycho.backend import Array, array_namespace, device, get_backend
from ptycho.errors import DataError
from ptycho.physics.checks import positions_beside

__all__ = ["accumulate_patches", "extract_patches", "spread_patches"]


def extract_patches(image: Array, positions: Array, size: int) -> Array:
    """Patches of ``image`` centred at ``positions``.

    Parameters
    ----------
    image : (H, W) real or complex; whole numbers become float32.
    positions : (..., 2) real or integer, (row, col) in pixels of the image; with the image, or numpy's.
    size : N, the side of a patch in pixels.

    Returns
    -------
    (..., N, N) of the image's dtype, namespace and device. Differentiable by ``image`` and by ``positions``.

    Raises
    ------
    DataError
        ``image`` is not two-dimensional, ``positions`` does not end in an axis of length 2 or is of another framework
        or on another device than the image, or ``size`` < 1.
    """
    if image.ndim != 2:
        raise DataError(f"image: got shape {tuple(image.shape)}; expected (H, W).")
    xp = array_namespace(image)
    image = _widened(xp, image)
    corners, rows, cols, lead = _plan(image, positions, size, tuple(image.shape), "image")
    windows = get_backend(image).gather_windows(_pad(xp, image, size + 1, size + 1), corners, size + 1)
    mixed = windows[:, :-1, :] * (1.0 - rows) + windows[:, 1:, :] * rows
    patches = mixed[:, :, :-1] * (1.0 - cols) + mixed[:, :, 1:] * cols
    return xp.reshape(patches, (*lead, size, size))


def accumulate_patches(patches: Array, positions: Array, shape: tuple[int, int]) -> Array:
    """Sum of ``patches`` at ``positions`` on an image of zeros: the exact adjoint of :func:`extract_patches`.

    Parameters
    ----------
    patches : (..., N, N) real or complex; whole numbers become float32.
    positions : (..., 2) real or integer, (row, col) of the patch centres in pixels of the image; with the patches, or
        numpy's.
    shape : (H, W) of the image. What falls outside is dropped, as the adjoint demands.

    Returns
    -------
    (H, W) of the patches' dtype, namespace and device. Differentiable by ``patches`` and by ``positions``.

    Raises
    ------
    DataError
        The leading axes of ``patches`` and ``positions`` differ, a shape is not of the form above, or the positions are
        of another framework or on another device.
    """
    windows, corners = spread_patches(patches, positions, shape)
    margin = patches.shape[-1] + 1
    padded = get_backend(patches).scatter_windows(windows, corners, (shape[0] + 2 * margin, shape[1] + 2 * margin))
    return padded[margin : margin + shape[0], margin : margin + shape[1]]


def spread_patches(patches: Array, positions: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """What :func:`accumulate_patches` adds, and where, for callers that sum in place.

    Parameters
    ----------
    patches, positions, shape : as for :func:`accumulate_patches`.

    Returns
    -------
    windows : (K, N + 1, N + 1), the patches spread over their four neighbouring pixels.
    corners : (K, 2) integer, first pixel of each window on the image with a margin of N + 1 on every side.
    """
    size = patches.shape[-1]
    if patches.ndim < 2 or patches.shape[-2] != size or tuple(patches.shape[:-2]) != tuple(positions.shape[:-1]):
        raise DataError(
            f"patches: got shape {tuple(patches.shape)} for positions of shape {tuple(positions.shape)}; "
            "expected (..., N, N) and (..., 2) with the same leading axes."
        )
    xp = array_namespace(patches)
    patches = _widened(xp, patches)
    corners, rows, cols, _ = _plan(patches, positions, size, shape, "patches")
    flat = xp.reshape(patches, (-1, size, size))
    first, last = flat * (1.0 - cols), flat * cols
    mixed = _edge(xp, first, axis=2, front=False) + _edge(xp, last, axis=2, front=True)
    windows = _edge(xp, mixed * (1.0 - rows), axis=1, front=False) + _edge(xp, mixed * rows, axis=1, front=True)
    return windows, corners


def _widened(xp: Array, values: Array) -> Array:
    """Whole numbers as float32: between two of them there are fractions."""
    return xp.astype(values, xp.float32) if xp.isdtype(values.dtype, ("integral", "bool")) else values


def _plan(
    like: Array, positions: Array, size: int, shape: tuple[int, int], name: str
) -> tuple[Array, Array, Array, tuple]:
    """Window corners on the padded image, (K, 1, 1) row and column fractions of the patches' dtype, leading axes."""
    if size < 1:
        raise DataError(f"size: got {size}; expected the side of a patch, at least 1 pixel.")
    positions = positions_beside(like, positions, beside=name)
    xp = array_namespace(like)
    lead = tuple(positions.shape[:-1])
    corner = xp.reshape(positions, (-1, 2)) - float(size // 2)
    whole = xp.floor(corner)
    fraction = xp.astype(corner - whole, like.dtype)
    margin = size + 1
    limits = [xp.clip(xp.astype(whole[:, axis], xp.int32), -margin, shape[axis]) + margin for axis in (0, 1)]
    corners = xp.stack(limits, axis=-1)
    return corners, fraction[:, 0][:, None, None], fraction[:, 1][:, None, None], lead


def _pad(xp: Array, image: Array, rows: int, cols: int) -> Array:
    """``image`` with ``rows`` and ``cols`` zeros on either side of its two axes."""
    height, width = image.shape
    side = xp.zeros((height, cols), dtype=image.dtype, device=device(image))
    wide = xp.concat([side, image, side], axis=1)
    top = xp.zeros((rows, width + 2 * cols), dtype=image.dtype, device=device(image))
    return xp.concat([top, wide, top], axis=0)


def _edge(xp: Array, stack: Array, axis: int, front: bool) -> Array:
    """``stack`` with one slice of zeros in front of, or behind, its ``axis``."""
    shape = tuple(1 if i == axis else n for i, n in enumerate(stack.shape))
    slice_ = xp.zeros(shape, dtype=stack.dtype, device=device(stack))
    return xp.concat([slice_, stack] if front else [stack, slice_], axis=axis)
