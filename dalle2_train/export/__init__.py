"""Trained parts out of the house: our own release folder, and a diffusers folder that has proved itself."""

from dalle2_train.export.diffusers_folder import DiffusersExport, export_diffusers
from dalle2_train.export.release import Release, export_release

__all__ = ["DiffusersExport", "Release", "export_diffusers", "export_release"]
