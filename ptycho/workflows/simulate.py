"""Simulate a scan: object, probe and positions from a few settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptycho.config import validate
from ptycho.config.mapping import config_to_dict
from ptycho.config.settings import data_dirs_setting, setting
from ptycho.data import Scan, load_scan, validation
from ptycho.errors import ConfigError, DataError
from ptycho.observers import Progress
from ptycho.physics import (
    dead_leaves_object,
    fermat_positions,
    focused_probe,
    gaussian_probe,
    idealised_probe,
    lines_object,
    picture_object,
    probe_modes,
    random_field_object,
    random_positions,
    raster_positions,
    simulate,
)


@dataclass
class SimulationConfig:
    """What is simulated."""

    object: str = setting(
        "lines", "what the object looks like", choices=("lines", "random_field", "dead_leaves", "picture")
    )
    picture: str = setting("camera", "for object picture: name of a scikit-image picture, or an image file")
    size: int = setting(392, "side of the object", unit="pixels", at_least=16)
    amplitude_min: float = setting(0.3, "smallest amplitude of the object; the largest is 1", at_least=0, at_most=1)
    phase: float = setting(0.8, "phase of the object runs from minus to plus this", unit="radians", at_least=0)
    slices: int = setting(1, "slices of the object along the beam, each drawn anew (a picture turned)", at_least=1)
    slice_spacing: float | None = setting(
        None, "from one slice to the next; slices need it, wavelength and pixel_size", unit="metres", above=0
    )
    wavelength: float | None = setting(None, "wavelength, which the scan then states", unit="metres", above=0)
    pixel_size: float | None = setting(None, "the object's pixel, which the scan then states", unit="metres", above=0)
    N: int = setting(64, "side of a diffraction pattern", unit="pixels", at_least=8)
    probe: str = setting(
        "disc",
        "disc (blurred), gaussian, or focused (annular pupil out of focus, as of an X-ray optic)",
        choices=("disc", "gaussian", "focused"),
    )
    probe_file: Path | None = setting(None, "scan whose probe is taken instead")
    data_dirs: tuple[Path, ...] = data_dirs_setting()
    probe_size: float = setting(
        0.34, "diameter (disc), full width at half maximum (gaussian) or beam width (focused), part of N", above=0
    )
    modes: int = setting(1, "incoherent modes of the probe", at_least=1)
    positions: str = setting("random", "how the scan moves", choices=("random", "raster", "fermat"))
    n_positions: int = setting(2000, "scan points of random positions", at_least=1)
    step: float = setting(6.0, "distance of raster or fermat positions", unit="pixels", above=0)
    jitter: float = setting(0.0, "random displacement of raster or fermat positions", unit="pixels", at_least=0)
    nphotons: float = setting(1e6, "mean photons per pattern", unit="photons", above=0)
    noise: bool = setting(True, "draw photons; false records the expected counts")
    measurement: str = setting("counts", "what is recorded", choices=("counts", "amplitude"))
    seed: int = setting(0, "seed of object, positions and photons", at_least=0)
    output_dir: Path = setting(Path("simulation"), "folder for scan.npz and scan.png, created if missing")


def simulate_scan(config: SimulationConfig, progress: Progress | None = None) -> Scan:
    """Simulate the scan that the settings describe; the same settings give the same scan.

    Parameters
    ----------
    config
        The settings.
    progress
        Called with (patterns done, all patterns).

    Returns
    -------
    Scan
        With the probe in sqrt(photons), the true object, and the settings in its metadata.

    Raises
    ------
    ConfigError
        A setting is not possible.
    DataError
        The object is too small for the patterns, or a file that is referred to cannot be read.
    """
    validate(config)
    if config.size < config.N:
        raise ConfigError(f"size = {config.size} is not possible: an object of at least N = {config.N} is needed.")
    lengths = (config.slice_spacing, config.wavelength, config.pixel_size)
    if config.slices > 1 and None in lengths:
        raise ConfigError(f"slices = {config.slices} needs slice_spacing, wavelength and pixel_size: give all of them.")
    object_seed, position_seed, photon_seed = np.random.SeedSequence(config.seed).spawn(3)
    return simulate(
        _slices(config, np.random.default_rng(object_seed)),
        _probe(config),
        _positions(config, np.random.default_rng(position_seed)),
        config.nphotons,
        np.random.default_rng(photon_seed),
        measurement=validation.measurement(config.measurement),
        noise=config.noise,
        progress=progress,
        spacing=config.slice_spacing if config.slices > 1 else None,
        wavelength=config.wavelength,
        pixel_size=config.pixel_size,
        name=f"simulated {config.object.replace('_', ' ')}",
        metadata={"simulation": config_to_dict(config)},
    )


def _slices(config: SimulationConfig, rng: np.random.Generator) -> np.ndarray:
    """(H, W), or (S, H, W) of more than one."""
    images = [_object(config, rng) for _ in range(config.slices)]
    if config.object == "picture":
        images = [np.rot90(image, turns) for turns, image in enumerate(images)]
    return images[0] if len(images) == 1 else np.stack(images)


def _object(config: SimulationConfig, rng: np.random.Generator) -> np.ndarray:
    shape = (config.size, config.size)
    amplitude, phase = (config.amplitude_min, 1.0), (-config.phase, config.phase)
    if config.object == "picture":
        return picture_object(config.picture, shape, amplitude, phase)
    make: dict[str, Callable[..., np.ndarray]] = {
        "lines": lines_object,
        "random_field": random_field_object,
        "dead_leaves": dead_leaves_object,
    }
    return make[config.object](shape, rng, amplitude, phase)


def _probe(config: SimulationConfig) -> np.ndarray:
    if config.probe_file is not None:
        probe = load_scan(config.probe_file, data_dirs=config.data_dirs).probe
        if probe is None or probe.shape[-1] != config.N:
            found = "no probe" if probe is None else f"a probe of {probe.shape[-1]} pixels"
            raise DataError(f"probe_file = {config.probe_file} holds {found}: expected one of N = {config.N} pixels.")
        return probe
    wide = config.probe_size * config.N
    if config.probe == "gaussian":
        # The full width at half maximum of the intensity exp(-r^2 / sigma^2) is 2 sqrt(ln 2) sigma.
        probe = gaussian_probe(config.N, wide / (2 * np.sqrt(np.log(2))))
    elif config.probe == "focused":
        probe = focused_probe(config.N, size=min(config.probe_size, 1.0))
    else:
        # PtychoPINN's disc has the radius sqrt(2 ln 2) N / (pi^2 scale).
        probe = idealised_probe(config.N, scale=2 * np.sqrt(2 * np.log(2)) / (np.pi**2 * config.probe_size))
    return probe_modes(probe, config.modes) if config.modes > 1 else probe


def _positions(config: SimulationConfig, rng: np.random.Generator) -> np.ndarray:
    shape = (config.size, config.size)
    if config.positions == "random":
        return random_positions(shape, config.N, config.n_positions, rng)
    make = {"raster": raster_positions, "fermat": fermat_positions}[config.positions]
    return make(shape, config.N, config.step, jitter=config.jitter, rng=rng)
