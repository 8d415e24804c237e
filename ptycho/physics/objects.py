r"""Objects for simulations: complex transmission functions :math:`O = A e^{i\varphi}`.

Every function works on numpy arrays, draws from one seeded generator, and returns a dimensionless complex array ``(H,
W)`` whose amplitude and phase fill the given ranges exactly. Phases are in radians.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ptycho.errors import DataError

__all__ = [
    "dead_leaves_object",
    "lines_object",
    "object_from_maps",
    "picture_object",
    "random_field_object",
]

Seed = int | np.random.Generator | None
Range = tuple[float, float]

_AMPLITUDE: Range = (0.3, 1.0)
_PHASE: Range = (-0.8, 0.8)
_LINES_PER_PIXEL = 400 / 784
"""Lines per pixel of the drawing's side: the density of PtychoPINN's benchmark object."""
_LINE_BLURS = ((1.0, 1.0), (2.0, 5.0), (5.0, 10.0))
"""(weight, sigma in pixels) of the blurred copies that a lines object sums."""


def object_from_maps(
    amplitude_map: ArrayLike,
    phase_map: ArrayLike,
    amplitude: Range = _AMPLITUDE,
    phase: Range = _PHASE,
    dtype: DTypeLike = np.complex64,
) -> np.ndarray:
    """Object whose amplitude and phase follow two maps, each stretched linearly onto its range.

    Parameters
    ----------
    amplitude_map, phase_map : (H, W) real; a constant map gives the middle of the range.
    amplitude : lowest and highest transmission amplitude, both >= 0.
    phase : lowest and highest phase, radians.
    dtype : complex dtype of the result.

    Returns
    -------
    (H, W) complex object, dimensionless.

    Raises
    ------
    DataError
        A map is not two-dimensional or not finite, the shapes differ, or a range is reversed or negative.
    """
    _check_range("amplitude", amplitude, lowest=0.0)
    _check_range("phase", phase)
    first, second = np.asarray(amplitude_map, dtype=np.float64), np.asarray(phase_map, dtype=np.float64)
    if first.ndim != 2 or first.shape != second.shape:
        raise DataError(
            f"object maps: got shapes {first.shape} and {second.shape}; expected two images of the same size (H, W)."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DataError("object maps: got NaN or infinite pixels; expected finite real images.")
    return (_stretch(first, amplitude) * np.exp(1j * _stretch(second, phase))).astype(dtype)


def lines_object(
    shape: tuple[int, int],
    rng: Seed = 0,
    amplitude: Range = _AMPLITUDE,
    phase: Range = _PHASE,
    *,
    n_lines: int | None = None,
    correlated: bool = True,
    dtype: DTypeLike = np.complex64,
) -> np.ndarray:
    """Many straight lines drawn over each other and blurred: the object of PtychoPINN's benchmarks.

    Lines between uniformly random end points are drawn, one pixel wide, on an image of twice the size; copies blurred
    by 1, 5 and 10 pixels are added with weights 1, 2 and 5, and the central quarter of the area is kept.

    Parameters
    ----------
    shape : (H, W), pixels.
    rng : seed or numpy generator.
    amplitude, phase : ranges that the amplitude and the phase (radians) fill.
    n_lines : lines on the drawing; by default about one per pixel of the object's side, 400 for 392 x 392.
    correlated : amplitude and phase follow the same lines; otherwise the phase has lines of its own.
    dtype : complex dtype of the result.

    Returns
    -------
    (H, W) complex object, dimensionless.

    Raises
    ------
    DataError
        ``shape``, a range or ``n_lines`` is not usable.
    """
    shape = _check_shape(shape)
    if n_lines is None:
        n_lines = max(1, round(_LINES_PER_PIXEL * 2 * float(np.sqrt(shape[0] * shape[1]))))
    if n_lines < 1:
        raise DataError(f"n_lines: got {n_lines}; expected at least one line.")
    generator = np.random.default_rng(rng)
    first = _blurred_lines(shape, n_lines, generator)
    second = first if correlated else _blurred_lines(shape, n_lines, generator)
    return object_from_maps(first, second, amplitude, phase, dtype)


def random_field_object(
    shape: tuple[int, int],
    rng: Seed = 0,
    amplitude: Range = _AMPLITUDE,
    phase: Range = _PHASE,
    *,
    exponent: float = 3.0,
    correlated: bool = False,
    dtype: DTypeLike = np.complex64,
) -> np.ndarray:
    r"""Gaussian random field with power spectrum :math:`|f|^{-\mathrm{exponent}}`, periodic at the borders.

    Parameters
    ----------
    shape : (H, W), pixels.
    rng : seed or numpy generator.
    amplitude, phase : ranges that the amplitude and the phase (radians) fill.
    exponent : fall of the power spectrum; 0 is white noise, 2 to 4 looks like clouds.
    correlated : amplitude and phase follow the same field; otherwise they are independent.
    dtype : complex dtype of the result.

    Returns
    -------
    (H, W) complex object, dimensionless.

    Raises
    ------
    DataError
        ``shape`` or a range is not usable.
    """
    shape = _check_shape(shape)
    generator = np.random.default_rng(rng)
    first = _random_field(shape, exponent, generator)
    second = first if correlated else _random_field(shape, exponent, generator)
    return object_from_maps(first, second, amplitude, phase, dtype)


def dead_leaves_object(
    shape: tuple[int, int],
    rng: Seed = 0,
    amplitude: Range = _AMPLITUDE,
    phase: Range = _PHASE,
    *,
    radii: Range | None = None,
    exponent: float = 3.0,
    correlated: bool = False,
    blur: float = 0.7,
    dtype: DTypeLike = np.complex64,
) -> np.ndarray:
    r"""Dead leaves: opaque discs of random value that fall over each other until the background is covered.

    The density of radii is :math:`r^{-\mathrm{exponent}}` between two bounds; with exponent 3 the picture looks alike
    at every scale, as natural images and porous samples do. Source: Lee, Mumford and Huang, Int. J. Comput. Vis. 41
    (2001), section 3.

    Parameters
    ----------
    shape : (H, W), pixels.
    rng : seed or numpy generator.
    amplitude, phase : ranges that the amplitude and the phase (radians) fill.
    radii : smallest and largest radius, pixels; by default 2 and a quarter of the shorter side.
    exponent : of the radii's density.
    correlated : a leaf's phase follows its amplitude; otherwise both are drawn.
    blur : Gaussian sigma that softens the edges, pixels; 0 leaves them hard.
    dtype : complex dtype of the result.

    Returns
    -------
    (H, W) complex object, dimensionless.

    Raises
    ------
    DataError
        ``shape``, a range or ``radii`` is not usable.
    """
    shape = _check_shape(shape)
    low, high = radii if radii is not None else (2.0, max(2.0, min(shape) / 4))
    if not 0.5 <= low <= high < np.inf:
        raise DataError(f"radii: got ({low}, {high}); expected 0.5 <= smallest <= largest, in pixels.")
    generator = np.random.default_rng(rng)
    first, second = _dead_leaves(shape, (low, high), exponent, generator)
    if blur > 0:
        from scipy.ndimage import gaussian_filter

        first, second = gaussian_filter(first, blur), gaussian_filter(second, blur)
    return object_from_maps(first, first if correlated else second, amplitude, phase, dtype)


def picture_object(
    image: str | os.PathLike[str] | ArrayLike = "camera",
    shape: tuple[int, int] | None = None,
    amplitude: Range = _AMPLITUDE,
    phase: Range = _PHASE,
    *,
    phase_image: str | os.PathLike[str] | ArrayLike | None = None,
    dtype: DTypeLike = np.complex64,
) -> np.ndarray:
    """Object from a picture: dark to bright becomes the amplitude's and the phase's range.

    Parameters
    ----------
    image : the name of a picture that scikit-image contains (``"camera"``, ``"coins"``, ``"moon"``, ``"brick"``,
        ``"grass"``, ``"gravel"``, ``"text"``, ``"page"``, ``"astronaut"``, ...), the path of an image file, or an
        array ``(H, W)`` or ``(H, W, 3)``. Colour is turned into luminance.
    shape : (H, W), pixels, to which the picture is resized bilinearly; by default it is left as it is.
    amplitude, phase : ranges that the amplitude and the phase (radians) fill.
    phase_image : a second picture for the phase, as ``image``; by default the same one.
    dtype : complex dtype of the result.

    Returns
    -------
    (H, W) complex object, dimensionless.

    Raises
    ------
    DataError
        The picture cannot be found or read, or is not an image.
    """
    first = _read_picture(image)
    target = first.shape if shape is None else _check_shape(shape)
    first = _resize(first, target)
    second = first if phase_image is None else _resize(_read_picture(phase_image), target)
    return object_from_maps(first, second, amplitude, phase, dtype)


def _blurred_lines(shape: tuple[int, int], n_lines: int, rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    canvas = (2 * shape[0], 2 * shape[1])
    ends = rng.random((n_lines, 2, 2))
    drawing = np.zeros(canvas)
    for (start_row, start_col), (end_row, end_col) in np.floor(ends * canvas).astype(int):
        steps = max(abs(end_row - start_row), abs(end_col - start_col)) + 1
        rows = np.rint(np.linspace(start_row, end_row, steps)).astype(int)
        cols = np.rint(np.linspace(start_col, end_col, steps)).astype(int)
        drawing[rows, cols] = 1.0
    blurred = sum(weight * gaussian_filter(drawing, sigma) for weight, sigma in _LINE_BLURS)
    top, left = shape[0] // 2, shape[1] // 2
    return np.asarray(blurred)[top : top + shape[0], left : left + shape[1]]


def _random_field(shape: tuple[int, int], exponent: float, rng: np.random.Generator) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * frequency ** (-exponent / 2)
    spectrum[0, 0] = 0.0
    return np.fft.irfft2(spectrum, s=shape)


def _dead_leaves(
    shape: tuple[int, int], radii: Range, exponent: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Two images of the same leaves with independent values; the first leaf to cover a pixel is the top one."""
    first, second = np.zeros(shape), np.zeros(shape)
    bare = np.ones(shape, dtype=bool)
    batch = 256
    # Leaves fall onto a field wider than the image by the largest radius: its borders are covered like its centre.
    while bare.any():
        radius = _power_law(rng.random(batch), radii, exponent)
        rows = rng.uniform(-radii[1], shape[0] + radii[1], batch)
        cols = rng.uniform(-radii[1], shape[1] + radii[1], batch)
        values = rng.random((batch, 2))
        if np.count_nonzero(bare) < 0.002 * bare.size:  # aim the last leaves at the gaps: uniform ones rarely hit
            gaps = np.argwhere(bare)
            rows, cols = gaps[rng.integers(len(gaps), size=batch)].T + rng.uniform(-1, 1, (2, batch)) * radius / 2
        for r, row, col, (value, other) in zip(radius, rows, cols, values, strict=True):
            top, bottom = max(0, int(np.ceil(row - r))), min(shape[0], int(np.floor(row + r)) + 1)
            left, right = max(0, int(np.ceil(col - r))), min(shape[1], int(np.floor(col + r)) + 1)
            if top >= bottom or left >= right:
                continue
            box = np.s_[top:bottom, left:right]
            inside = np.arange(top, bottom)[:, None] - row, np.arange(left, right)[None, :] - col
            seen = bare[box] & (inside[0] ** 2 + inside[1] ** 2 <= r * r)
            first[box][seen], second[box][seen] = value, other
            bare[box][seen] = False
    return first, second


def _power_law(uniform: np.ndarray, bounds: Range, exponent: float) -> np.ndarray:
    """Inverse distribution function of the density r^-exponent between the bounds."""
    low, high = bounds
    if abs(exponent - 1.0) < 1e-9:
        return low * (high / low) ** uniform
    power = 1.0 - exponent
    return (low**power + uniform * (high**power - low**power)) ** (1.0 / power)


def _read_picture(image: str | os.PathLike[str] | ArrayLike) -> np.ndarray:
    if isinstance(image, str | os.PathLike):
        picture, told = _open_picture(image), repr(os.fspath(image))
    else:
        picture, told = np.asarray(image), "the given array"
    if picture.ndim == 3 and picture.shape[-1] in (3, 4):
        picture = picture[..., :3] @ np.array([0.2125, 0.7154, 0.0721])  # luminance, ITU-R BT.709
    if picture.ndim != 2 or min(picture.shape) < 2 or picture.dtype.kind not in "buif":
        raise DataError(
            f"picture: {told} has shape {picture.shape} and type {picture.dtype}; "
            "expected a grey or colour image, (H, W) or (H, W, 3), of real numbers."
        )
    return picture.astype(np.float64)


def _open_picture(image: str | os.PathLike[str]) -> np.ndarray:
    from pathlib import Path

    from skimage import data, io

    path = Path(image)
    bundled = Path(data.data_dir) / f"{image}.png"
    is_name = isinstance(image, str) and path.name == image
    if not path.is_file() and not (is_name and bundled.is_file()):
        names = ", ".join(sorted(p.stem for p in Path(data.data_dir).glob("*.png")))
        raise DataError(f"picture: no file {str(image)!r} and no bundled picture of that name; bundled are: {names}.")
    try:
        return np.asarray(io.imread(path if path.is_file() else bundled))
    except Exception as error:  # the readers behind imread raise exceptions of many classes
        raise DataError(f"picture: {str(path)!r} could not be read as an image ({error}).") from error


def _resize(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if picture.shape == tuple(shape):
        return picture
    from skimage.transform import resize

    smaller = shape[0] < picture.shape[0] or shape[1] < picture.shape[1]
    return np.asarray(resize(picture, shape, order=1, mode="edge", anti_aliasing=smaller))


def _stretch(values: np.ndarray, bounds: Range) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    part = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    return bounds[0] + (bounds[1] - bounds[0]) * part


def _check_shape(shape: Any) -> tuple[int, int]:
    try:
        height, width = (int(n) for n in shape)
    except (TypeError, ValueError):
        height = width = 0
    if height < 2 or width < 2:
        raise DataError(f"shape: got {shape}; expected the object's (rows, columns), each at least 2.")
    return height, width


def _check_range(name: str, bounds: Range, lowest: float = -np.inf) -> None:
    low, high = bounds
    if not (lowest <= low <= high < np.inf and low > -np.inf):
        least = "" if lowest == -np.inf else f", and nothing below {lowest:g}"
        raise DataError(f"{name}: got the range ({low}, {high}); expected lowest <= highest, finite{least}.")
