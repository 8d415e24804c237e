"""What runs where: every array function of the core, every framework, compiled or not, with a gradient or not.

This table is data. The tests beside it take their cases and their skips from it, and ``docs/backends.md`` is written
from it: ``python -m tests.backends.capabilities``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

COLUMNS = {
    "numpy": "numpy",
    "array_api_strict": "array-api-strict",
    "pytorch": "PyTorch",
    "jax": "JAX",
    "tensorflow": "TensorFlow",
    "dask": "Dask",
}
ALL = frozenset(COLUMNS)
BACKENDS = ALL - {"array_api_strict", "dask"}
COMPILERS = frozenset({"jax", "tensorflow"})
LEARNERS = frozenset({"pytorch", "jax", "tensorflow"})
HOST = frozenset({"numpy"})
NOWHERE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Row:
    """One function: where it runs, where also compiled, where it has a gradient by its first array, and why not."""

    module: str
    name: str
    runs: frozenset[str] = ALL
    jit: frozenset[str] = COMPILERS
    gradient: frozenset[str] = LEARNERS
    note: str = ""

    def cell(self, backend: str) -> str:
        """The word of the docs page."""
        if backend not in self.runs:
            return "–"
        return " ".join(["yes", *["jit"] * (backend in self.jit), *["grad"] * (backend in self.gradient)])


def host(module: str, *names: str, note: str) -> list[Row]:
    """Functions that make or take host arrays only."""
    return [Row(module, name, HOST, NOWHERE, NOWHERE, note) for name in names]


_ONE_NUMBER = "gives a Python number, so it is no part of a compiled function"
_CANVAS = "plans on the host; takes positions of any framework"
_STREAM = "takes patches of any framework, sums on the host in double precision"
_DRAWN = "makes host arrays, which every backend takes"

TABLE: list[Row] = [
    *(Row("fourier", name) for name in ("fft2", "ifft2", "fftshift2", "ifftshift2")),
    *(
        Row("propagation", name)
        for name in (
            "illuminate",
            "far_field",
            "near_field",
            "intensity",
            "diffraction_intensity",
            "diffraction_amplitude",
        )
    ),
    Row("patches", "extract_patches"),
    Row("patches", "accumulate_patches"),
    Row("patches", "place_patches"),
    *host("patches", "read_patches", note="reads a large object in place, on the host"),
    Row("reassembly", "reassemble", note="compiled where its canvas is given (`shape`, `origin`)"),
    Row("reassembly", "merge_groups"),
    Row("reassembly", "extract_groups"),
    Row("reassembly", "Canvas", ALL, NOWHERE, NOWHERE, _STREAM),
    Row("reassembly", "canvas_for", ALL, NOWHERE, NOWHERE, _CANVAS),
    Row("reassembly", "stitching_window", ALL, NOWHERE, NOWHERE, "weights of any framework become numpy's"),
    *host("reassembly", "group_canvas_size", note="plans on the host"),
    *host("reassembly", "PartialReassembly", "merge_partials", "summed_window", note="sums in place, on the host"),
    Row("likelihood", "poisson_nll"),
    Row("likelihood", "mae"),
    Row("regularisation", "squared_gradient"),
    Row("regularisation", "complex_mae"),
    Row("updates", "pie_object_update"),
    Row("updates", "exit_wave_update"),
    Row("shifts", "fourier_shift"),
    Row("slices", "incoming_waves"),
    Row("slices", "multislice_intensity"),
    Row("photons", "normalise_amplitude", jit=NOWHERE, gradient=NOWHERE, note=_ONE_NUMBER),
    Row("photons", "photons_per_pattern"),
    Row("photons", "photon_scale", jit=NOWHERE, gradient=NOWHERE, note=_ONE_NUMBER),
    *host("photons", "intensity_scale", "scale_to_photons", note="plain numbers"),
    *host("photons", "poisson_sample", note="one stream of random numbers, on the host"),
    Row("probe", "scale_probe_to_counts"),
    Row("probe", "normalise_probe"),
    *host(
        "probe",
        "disc_mask",
        "disc_probe",
        "focused_probe",
        "gaussian_probe",
        "idealised_probe",
        "zone_plate_probe",
        note=_DRAWN,
    ),
    *host("probe_from_data", "probe_from_patterns", note=_DRAWN),
    *host("modes", "probe_modes", note=_DRAWN),
    *host("aberrations", "apply_aberrations", "noll_to_zernike", "zernike_polynomial", note=_DRAWN),
    *host(
        "objects",
        "dead_leaves_object",
        "lines_object",
        "object_from_maps",
        "picture_object",
        "random_field_object",
        note=_DRAWN,
    ),
    *host("positions", "fermat_positions", "patch_limits", "random_positions", "raster_positions", note=_DRAWN),
    Row("simulation", "simulate", BACKENDS, NOWHERE, NOWHERE, "computes on the backend it is told, gives a host scan"),
    Row("Backend", "gather_windows"),
    Row("Backend", "scatter_windows"),
    *(Row("Backend", name, BACKENDS, note="beyond the standard") for name in ("conv2d", "relu", "max_pool2d")),
    Row("Backend", "stop_gradient", gradient=NOWHERE, note="its gradient is none on purpose"),
    *(
        Row("PtychoPINN", name, BACKENDS, note="the network's convolutions are beyond the standard")
        for name in ("patches", "expected_counts", "loss")
    ),
]
"""Every public array function, once."""


def rows(**wanted: str) -> list[Row]:
    """The rows whose sets hold the backend asked for: ``rows(jit="jax")``."""
    return [row for row in TABLE if all(backend in getattr(row, column) for column, backend in wanted.items())]


def capable(module: str, name: str, backend: str, column: str = "runs") -> bool:
    """Whether the table says that the function runs there (``jit``: compiled, ``gradient``: has a gradient)."""
    (row,) = (row for row in TABLE if (row.module, row.name) == (module, name))
    return backend in getattr(row, column)


def markdown() -> str:
    """The table of the docs page."""
    lines = [
        "| function | " + " | ".join(COLUMNS.values()) + " | |",
        "| --- |" + " --- |" * (len(COLUMNS) + 1),
    ]
    for row in TABLE:
        cells = " | ".join(row.cell(backend) for backend in COLUMNS)
        lines.append(f"| `{row.module}.{row.name}` | {cells} | {row.note} |")
    return "\n".join(lines)


PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
MARKS = "<!-- capabilities: written by python -m tests.backends.capabilities -->", "<!-- end of capabilities -->"


def page(text: str) -> str:
    """The docs page with the table between its marks brought up to date."""
    before, rest = text.split(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{markdown()}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
