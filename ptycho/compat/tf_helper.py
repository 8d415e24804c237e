"""PtychoPINN's name for stitching patches, whatever its letters say: no TensorFlow here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.backends import to_numpy
from ptycho.physics import reassemble

__all__ = ["reassemble_position"]


def reassemble_position(obj_tensor: Any, global_offsets: Any, M: int = 10) -> NDArray[np.complexfloating]:
    """Average the centre crops of patches at ``+(offset - mean offset)``.

    Parameters
    ----------
    obj_tensor
        (B, N, N, 1) complex patches, any framework.
    global_offsets
        (B, 1, 2, 1) pixels, [x, y] = [column, row].
    M
        Side of the centre crop, pixels.

    Returns
    -------
    (S, S, 1) complex, S = M + 2 p with p the largest offset from the mean, rounded up to even; the mean position is
    the centre pixel. 0 where no patch lies.

    Raises
    ------
    DataError
        The shapes do not belong together, or M does not fit.
    """
    patches = to_numpy(obj_tensor)[..., 0]
    positions = np.reshape(to_numpy(global_offsets), (-1, 2))[:, ::-1].astype(np.float64)
    centred = positions - positions.mean(axis=0)
    reach = math.ceil(float(np.abs(centred).max()))
    half = M // 2 + reach + reach % 2
    stitched = reassemble(patches, centred, "crop", crop=M, shape=(2 * half, 2 * half), origin=(-half, -half))
    return np.where(stitched.weight > 0, stitched.object, 0)[..., None]
