"""Models that other programs trained, as bundles of this library."""

from ptycho.model.importers.archives import CARTESIAN, CartesianCnn, import_archive, model_folders

__all__ = ["CARTESIAN", "CartesianCnn", "import_archive", "model_folders"]
