"""Trained parts out of the house: our own release folder, and a diffusers folder that has proved itself."""

from dalle2_train.export.diffusers_folder import export_diffusers
from dalle2_train.export.release import Release, export_release
from dalle2_train.export.report import DiffusersExport

__all__ = ["DiffusersExport", "Release", "export_diffusers", "export_release"]
