"""Physics, written once against the array API: probes, propagation, patches, reassembly, likelihoods, simulation.

The public names are those of `__init__.pyi`; each is imported when it is first used.
"""

from typing import Any

import lazy_loader

_FORMER = {
    "Laid": "PartialReassembly",
    "laid_together": "merge_partials",
    "modulus_update": "pie_object_update",
    "total_variation": "squared_gradient",
    "wave_change": "exit_wave_update",
}
_import, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used; a former name gives a warning and what it is called now."""
    if name not in _FORMER:
        return _import(name)
    from ptycho.config.deprecated import warn_renamed

    warn_renamed(f"ptycho.physics.{name}", f"ptycho.physics.{_FORMER[name]}")
    return _import(_FORMER[name])
