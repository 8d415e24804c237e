"""Physics, written once against the array API: probes, propagation, patches, reassembly, likelihoods, simulation.

The public names are imported when first used.
"""

from importlib import import_module
from typing import Any

from ptycho.config.deprecated import warn_renamed

_HOME = {
    "aberrations": ("apply_aberrations", "noll_to_zernike", "zernike_polynomial"),
    "estimate": ("Estimate", "estimate_object", "pie_object_update", "exit_wave_update"),
    "fourier": ("fft2", "fftshift2", "ifft2", "ifftshift2"),
    "likelihood": ("mae", "poisson_nll"),
    "modes": ("probe_modes",),
    "objects": ("dead_leaves_object", "lines_object", "object_from_maps", "picture_object", "random_field_object"),
    "patches": ("accumulate_patches", "extract_patches", "place_patches", "read_patches"),
    "photons": (
        "intensity_scale",
        "normalise_amplitude",
        "photon_scale",
        "photons_per_pattern",
        "poisson_sample",
        "scale_to_photons",
    ),
    "positions": ("fermat_positions", "patch_limits", "random_positions", "raster_positions"),
    "probe": (
        "disc_mask",
        "disc_probe",
        "focused_probe",
        "gaussian_probe",
        "idealised_probe",
        "normalise_probe",
        "scale_probe_to_counts",
        "zone_plate_probe",
    ),
    "probe_from_data": ("probe_from_patterns",),
    "propagation": (
        "diffraction_amplitude",
        "diffraction_intensity",
        "far_field",
        "illuminate",
        "intensity",
        "near_field",
    ),
    "reassembly": (
        "Canvas",
        "PartialReassembly",
        "Reassembled",
        "canvas_for",
        "extract_groups",
        "group_canvas_size",
        "merge_partials",
        "merge_groups",
        "reassemble",
        "stitching_window",
        "summed_window",
    ),
    "regularisation": ("complex_mae", "squared_gradient"),
    "shifts": ("fourier_shift",),
    "simulation": ("simulate",),
    "slices": ("incoming_waves", "multislice_intensity"),
}
_FORMER = {
    "modulus_update": "pie_object_update",
    "total_variation": "squared_gradient",
    "wave_change": "exit_wave_update",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name in _FORMER:
        warn_renamed(f"ptycho.physics.{name}", f"ptycho.physics.{_FORMER[name]}")
        return __getattr__(_FORMER[name])
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ptycho.physics' has no attribute {name!r}")
    value = getattr(import_module(f"ptycho.physics.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names beside what is loaded."""
    return sorted({*globals(), *__all__})
