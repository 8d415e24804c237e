"""What a user may set about an iterative reconstruction."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ptycho.config.deprecated import former_names
from ptycho.config.settings import documented, setting
from ptycho.config.validation import check_fields

__all__ = ["EngineConfig", "EngineSettings", "engine_names", "engine_points", "fields_of_others"]

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_GROUP = "ptycho.engines"


def engine_points() -> dict[str, EntryPoint]:
    """The entry points of all installed engines by name."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=_GROUP)}


def engine_names() -> tuple[str, ...]:
    """Names of the engines that are registered."""
    return tuple(sorted(engine_points()))


def fields_of_others(cls: type, engine: str) -> set[str]:
    """Names of the fields of a settings class that other engines read and this one does not."""
    declared = {item.name: item.metadata.get("engines", ()) for item in fields(cls)}
    return {name for name, engines in declared.items() if engines and engine not in engines}


_FORMER = {"averaged": "full_batch_epochs", "engine_batch": "engine_batch_size", "shift": "interpolation"}


@former_names(_FORMER)
@documented
@dataclass
class EngineSettings:
    """How an iterative engine works, but for how long."""

    engine: str = setting("rpie", "the iterative engine", choices=engine_names)
    engine_batch_size: int | None = setting(
        None, "patterns per update; none takes the engine's own (epie 1, rpie and lsqml 16, gradient 32)", at_least=1
    )
    batches: str = setting(
        "random", "which patterns share an update: any, near ones or far ones", choices=("random", "compact", "sparse")
    )
    noise: str = setting(
        "amplitude",
        "what the patterns' noise is like; poisson and anscombe need patterns in photons",
        choices=("amplitude", "poisson", "anscombe"),
    )
    object_step: float = setting(1.0, "length of the object's updates", above=0, at_most=2)
    probe_step: float = setting(1.0, "length of the probe's updates; 0 keeps the probe", at_least=0, at_most=2)
    probe_from: int = setting(0, "epochs before the probe is updated", at_least=0)
    damping: float = setting(
        0.3,
        "regularisation of the object's update: near 0 every pixel moves by its whole update, at 1 only the brightest",
        above=0,
        at_most=1,
        engines=("rpie", "lsqml"),
    )
    momentum: float = setting(
        0.0, "part of an epoch's change that is repeated after the next", at_least=0, at_most=0.95
    )
    full_batch_epochs: int = setting(
        3,
        "last epochs that take the whole scan at once, which averages the noise; from scratch a third of all at most",
        at_least=0,
        engines=("rpie", "epie", "lsqml"),
    )
    step_size: float = setting(
        0.05, "first step of the optimiser, in parts of the object's amplitude", above=0, engines=("gradient",)
    )
    optimiser: str = setting("adam", "which optimiser", choices=("adam", "lbfgs"), engines=("gradient",))
    modes: int | None = setting(
        None, "incoherent modes of the probe; none keeps those of the scan", at_least=1, at_most=1000
    )
    slices: int | None = setting(
        None,
        "slices of the object along the beam; none keeps those of the start (1 from scratch)",
        at_least=1,
        at_most=1000,
    )
    slice_spacing: float | None = setting(
        None, "free space from one slice to the next; none keeps that of the start", unit="metres", above=0
    )
    propagation: str = setting(
        "far", "where the detector is; near needs the scan's wavelength, distance and pixel", choices=("far", "near")
    )
    interpolation: str = setting(
        "bilinear",
        "how the object is read between its pixels; fourier is exact and takes about twice the time",
        choices=("bilinear", "fourier"),
    )
    opr_modes: int = setting(
        0,
        "components in which the first mode varies from pattern to pattern, beside its brightness",
        at_least=0,
        at_most=1000,
    )
    opr_from: int = setting(5, "epochs before the probe varies from pattern to pattern", at_least=0)
    rescale_probe: bool = setting(
        True, "give the probe the power of the brightest patterns; false trusts the scan's probe to be in sqrt(photons)"
    )
    object_tv: float = setting(0.0, "weight of the object's total variation", at_least=0)
    object_smoothness: float = setting(0.0, "part by which each epoch smooths the object", at_least=0, at_most=1)
    amplitude_limit: float | None = setting(None, "highest amplitude of the object; none has no limit", above=0)
    phase_limit: float | None = setting(
        None, "largest phase of the object on either side of its mean; none has no limit", unit="radians", above=0
    )
    probe_support: float | None = setting(
        None, "radius outside which the probe is 0, as a part of N; none has no support", above=0, at_most=1
    )
    keep_probe_power: bool = setting(False, "keep the power that the probe started with")
    correct_positions: str = setting(
        "none", "correct the positions, and how", choices=("none", "gradient", "correlation")
    )
    positions_from: int = setting(5, "epochs before positions are corrected", at_least=0)
    position_limit: float | None = setting(
        None,
        "farthest that a position may move; none takes an eighth of N and a fiftieth of the scan's width",
        unit="pixels",
        above=0,
    )
    position_momentum: float = setting(
        0.8, "part of an epoch's correction of the positions that is repeated after the next", at_least=0, at_most=0.98
    )
    affine: bool = setting(False, "move positions together only: shift, scale, rotation and shear")
    double: bool = setting(False, "compute in double precision")
    backend: str | None = setting(None, "framework that computes; none takes numpy, and for gradient pytorch")
    device: str = setting("auto", "where to compute: auto, cpu, cuda, cuda:1, mps")
    seed: int = setting(0, "seed of every random choice", at_least=0)

    def __post_init__(self) -> None:
        check_fields(self)


@former_names(_FORMER)
@documented
@dataclass
class EngineConfig(EngineSettings):
    """One iterative reconstruction.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> config = ptycho.EngineConfig(engine="rpie", epochs=5)
    >>> config.epochs
    5
    >>> try:
    ...     ptycho.EngineConfig(epochs=0)
    ... except ptycho.ConfigError as error:
    ...     print(error)
    epochs = 0 is not possible: expected an integer, at least 1.
    """

    epochs: int = setting(30, "times that every pattern is visited", at_least=1)
