"""An export for diffusers that has proved itself, and the export.json in it that says so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalle2_train import storage
from dalle2_train.export.diffusers_names import TEXT_TO_IMAGE
from dalle2_train.export.staging import check_free, confirm, staged
from dalle2_train.export.upload import file_names, finish

REPORT = "export.json"


@dataclass(frozen=True)
class DiffusersExport:
    """An exported folder and why it can be trusted."""

    path: str
    models: Mapping[str, str]
    """Stage → digest of the model that was exported; the CLIP's is its fingerprint."""
    proof: Mapping[str, Any]
    """How far what a fresh process made of the folder is from ours, and what is allowed, as export.json holds it."""


def is_exported(to: str, about: Mapping[str, Any], last: str) -> bool:
    """Is the export that `about` tells of at `to`? Where not, there is room for it.

    about: `models` (stage → digest) and what else tells it from other exports. last: the file that is published after
    all others. Errors: InputError when something else is at `to`; RefusedError where the export there is damaged.
    """
    report = _report_at(to, last)
    if report is not None and all(report.get(key) == value for key, value in about.items()):
        confirm(to, report["files"])
        return True
    check_free(to, about)
    return False


def proved_export(
    to: str, about: Mapping[str, Any], last: str, make: Callable[[Path], Mapping[str, Any]]
) -> DiffusersExport:
    """The export at `to`; where it is not yet, `make` fills a folder and returns the proof.

    Errors: as `is_exported`, and those of `make`, with nothing at `to` then.
    """
    if is_exported(to, about, last):
        finish(to)
    else:
        with staged(to, last=last, about=about) as folder:
            proof = make(folder)
            files = {name: storage.sha256_file(folder / name) for name in file_names(folder)}
            storage.publish_json(str(folder / REPORT), {**about, "proof": proof, "files": files})
    proof = storage.read_json(storage.join(to, REPORT))["proof"]
    return DiffusersExport(storage.absolute(to), about["models"], proof)


def _report_at(to: str, last: str) -> dict[str, Any] | None:
    """The report of an earlier export to the same place, if one was finished there."""
    if not all(storage.exists(storage.join(to, name)) for name in (last, REPORT)):
        return None
    found = storage.read_json(storage.join(to, REPORT))
    if not isinstance(found, dict):
        return None
    report = {"pipeline": TEXT_TO_IMAGE} | found
    is_ours = all(isinstance(report.get(key), dict) and report[key] for key in ("files", "proof"))
    return report if is_ours else None
