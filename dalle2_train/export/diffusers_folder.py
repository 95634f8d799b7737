"""An unCLIP as a folder that `from_pretrained` of diffusers' unCLIP pipelines opens with no further argument."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dalle2_train.export import report
from dalle2_train.export.diffusers_names import IMAGE_VARIATION, INDEX, TEXT_TO_IMAGE, diffusers_version
from dalle2_train.export.diffusers_parts import write_folder
from dalle2_train.export.exportable import check_exportable, load_exportable
from dalle2_train.export.proof import PROOF_CONFIG, prove
from dalle2_train.export.release import model_digests
from dalle2_train.export.report import DiffusersExport, proved_export
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.unclip import Unclip

PROOF_PROMPTS = ("a red heart", "an old dog and a small cat look at the moon over the sea")


def export_diffusers(
    models: Sequence[str],
    to: str,
    *,
    clip: str | None = None,
    pipeline: str = TEXT_TO_IMAGE,
    prompts: Sequence[str] = PROOF_PROMPTS,
    proof_config: GenerationConfig = PROOF_CONFIG,
) -> DiffusersExport:
    """Writes the diffusers folder `to` (a folder or URI), after a fresh process has drawn our pictures with it.

    pipeline: UnCLIPPipeline, or UnCLIPImageVariationPipeline, which has no prior and needs the whole CLIP. prompts,
    proof_config: what is drawn for the proof (of variations, two pictures are), and how; fewer steps suit a large
    model. A `to` that holds the export of these very models is left as it is.
    Errors: InputError as `load_unclip`, or when something else is at `to`, or without diffusers; RefusedError for
    what diffusers cannot hold, and when the proof fails. Then nothing is at `to`.
    """
    version = diffusers_version()
    unclip = load_exportable(models, pipeline, clip=clip)
    check_exportable(unclip, pipeline)

    def make(folder: Path) -> dict[str, Any]:
        write_folder(unclip, folder, version, pipeline)
        drawn = () if pipeline == IMAGE_VARIATION else prompts
        return asdict(prove(unclip, folder, drawn, proof_config))

    return proved_export(to, _about(unclip, pipeline), INDEX, make)


def is_exported(unclip: Unclip, to: str, pipeline: str = TEXT_TO_IMAGE) -> bool:
    """Is the export of these very models at `to`? Where not, there is room for it, and diffusers can hold them: errors
    as `export_diffusers`, but for the proof."""
    check_exportable(unclip, pipeline)
    return report.is_exported(to, _about(unclip, pipeline), INDEX)


def _about(unclip: Unclip, pipeline: str) -> dict[str, Any]:
    return {"pipeline": pipeline, "models": model_digests(unclip)}
