"""An unCLIP as a folder that `from_pretrained` of diffusers' unCLIP pipelines opens with no further argument.

Our networks carry diffusers' names, so weights are written as they are; what diffusers cannot hold is refused by
name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dalle2_train import storage
from dalle2_train.encoders.tokenizer import save_tokenizer
from dalle2_train.errors import RefusedError
from dalle2_train.export.clip_halves import save_weights, write_image_encoder, write_text_encoder
from dalle2_train.export.diffusers_names import (
    CLASSES,
    IMAGE_VARIATION,
    INDEX,
    TEXT_TO_IMAGE,
    config_name,
    default_config,
    diffusers_version,
    parts_of,
    weights_name,
)
from dalle2_train.export.proof import PROOF_CONFIG, prove
from dalle2_train.export.release import model_digests
from dalle2_train.export.scheduler import scheduler_config
from dalle2_train.export.staging import check_free, file_names, refuse_damage, staged
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.direct import DirectModel
from dalle2_train.generation.drawing import load_model
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.unclip import ArPriorPart, Part, Unclip
from dalle2_train.networks import decoder, prior, upsampler

EXPORT_REPORT = "export.json"
PROOF_PROMPTS = ("a red heart", "an old dog and a small cat look at the moon over the sea")


@dataclass(frozen=True)
class DiffusersExport:
    """An exported folder and why it can be trusted."""

    path: str
    models: Mapping[str, str]
    """kind → digest of the model that was exported; the CLIP's is its fingerprint."""
    proof: Mapping[str, Any]
    """`Proof` as JSON, as export.json in the folder holds it."""


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
    digests = model_digests(unclip)
    report = _report_at(to)
    if report is None or report.get("models") != digests or report.get("pipeline", TEXT_TO_IMAGE) != pipeline:
        check_free(to)
        check_exportable(unclip, pipeline)
        with staged(to, last=INDEX) as folder:
            write_folder(unclip, folder, version, pipeline)
            proof = asdict(
                prove(unclip, folder, () if pipeline == IMAGE_VARIATION else prompts, proof_config)
            )
            files = {name: storage.sha256_file(folder / name) for name in file_names(folder)}
            report = {"pipeline": pipeline, "models": digests, "proof": proof, "files": files}
            storage.publish_json(str(folder / EXPORT_REPORT), report)
    else:
        refuse_damage(to, report.get("files", {}))
    return DiffusersExport(path=storage.absolute(to), models=digests, proof=report["proof"])


def load_exportable(
    models: Sequence[str], pipeline: str = TEXT_TO_IMAGE, *, clip: str | None = None
) -> Unclip:
    """What the pipeline is made of: `load_unclip`, but a direct baseline is refused by its name, with RefusedError."""
    if pipeline == IMAGE_VARIATION:
        return replace(load_unclip(models, clip=clip, parts=("decoder", "upsampler")), prior=None)
    model = load_model(models, clip=clip)
    if isinstance(model, DirectModel):
        raise RefusedError(
            f"{models[0]} is a direct baseline, which diffusers has no pipeline for; export it as safetensors"
        )
    return model


def check_exportable(unclip: Unclip, pipeline: str = TEXT_TO_IMAGE) -> None:
    """RefusedError that names everything diffusers cannot hold."""
    diffusions = {kind: part for kind, part in unclip.parts.items() if isinstance(part, Part)}
    faults = [fault for kind, part in diffusions.items() for fault in schedule_faults(kind, part)]
    faults += [
        f"the {kind} has a text encoder of its own, diffusers' reads CLIP's text"
        for kind, part in (("prior", unclip.prior), ("decoder", unclip.decoder))
        if part is not None and part.network.config.text_encoder is not None
    ]
    if isinstance(unclip.prior, ArPriorPart):
        faults.append(
            "the prior is autoregressive (ar_prior), which diffusers has no class for; export it as safetensors, or "
            "give a diffusion prior"
        )
    if unclip.prior is None and pipeline == TEXT_TO_IMAGE:
        faults.append("there is no prior, which UnCLIPPipeline cannot do without")
    faults += _upsampler_faults(unclip)
    if pipeline == IMAGE_VARIATION and not unclip.clip.sees_pictures:
        faults.append(
            "the CLIP has no image tower, which UnCLIPImageVariationPipeline begins with; give the whole CLIP"
        )
    config, length = unclip.decoder.network.config, unclip.clip.context_length
    if not any(config.attention):
        faults.append("the decoder has no attention at any level, diffusers' has it in the middle at least")
    if length in decoder.unexportable_text_lengths(config):
        faults.append(
            f"the context length {length} with {config.num_extra_tokens} extra tokens equals the number of pixels of "
            "a level with attention, where diffusers' attention fails; train with another context length"
        )
    if faults:
        raise RefusedError("diffusers' unCLIP cannot hold these models: " + "; ".join(faults))


def _upsampler_faults(unclip: Unclip) -> list[str]:
    if not unclip.upsamplers:
        return ["there is no upsampler, which UnCLIPPipeline cannot do without"]
    if len(unclip.upsamplers) == 1:
        return []
    sizes = [part.network.config for part in unclip.upsamplers]
    told = " and ".join(f"{size.low_size} → {size.high_size}" for size in sizes)
    return [
        f"there are two upsamplers ({told}), UnCLIPPipeline has one; leave the last one out, and "
        "export it alone, to a folder of its own"
    ]


def schedule_faults(kind: str, part: Part) -> list[str]:
    """What of a part's diffusion UnCLIPScheduler and its pipeline cannot hold."""
    faults = []
    if part.schedule_config.name != "cosine":
        faults.append(
            f"the {kind}'s noise schedule is {part.schedule_config.name!r}, UnCLIPScheduler has only 'cosine'"
        )
    if part.schedule_config.zero_terminal_snr:
        faults.append(
            f"the {kind}'s noise schedule has zero_terminal_snr, UnCLIPScheduler leaves a signal at the last timestep"
        )
    if part.objective.prediction_type not in ("epsilon", "sample"):
        faults.append(
            f"the {kind} predicts {part.objective.prediction_type!r}, UnCLIPScheduler knows 'epsilon' and 'sample'"
        )
    if kind != "decoder" and part.objective.learned_variance:
        faults.append(f"the {kind} learned its variance, UnCLIPPipeline knows that of decoders only")
    return faults


def write_folder(unclip: Unclip, folder: Path, diffusers_version: str, pipeline: str = TEXT_TO_IMAGE) -> None:
    """All files of the pipeline, unproved."""
    parts = parts_of(pipeline)
    for part, (config, weights) in _networks(unclip).items():
        if part in parts:
            _write_config(folder, part, config, diffusers_version)
            save_weights(weights, folder / part / weights_name(part))
    for part, trained in _sampled(unclip).items():
        if part in parts:
            config = scheduler_config(part, trained.schedule_config, trained.objective)
            _write_config(folder, part, config, diffusers_version)
    write_text_encoder(unclip.clip, folder / "text_encoder")
    save_tokenizer(unclip.clip.tokenizer, folder / "tokenizer")
    if pipeline == IMAGE_VARIATION:
        write_image_encoder(unclip.clip, folder / "image_encoder", folder / "feature_extractor")
    index = {part: list(CLASSES[part]) for part in parts}
    header = {"_class_name": pipeline, "_diffusers_version": diffusers_version}
    storage.publish_json(str(folder / INDEX), header | index)


def _networks(unclip: Unclip) -> dict[str, tuple[dict[str, Any], dict[str, Tensor]]]:
    """Part → (its config, its weights)."""
    diffusion_decoder = unclip.decoder.network
    networks = {
        "decoder": (decoder.diffusers_config(diffusion_decoder.config), _unet_weights(unclip.decoder)),
        "text_proj": (
            decoder.diffusers_text_proj_config(diffusion_decoder.config),
            diffusion_decoder.text_proj.state_dict(),
        ),
    }
    (part,) = unclip.upsamplers
    if isinstance(unclip.prior, Part):
        network = unclip.prior.network
        networks["prior"] = (prior.diffusers_config(network.config), network.state_dict())
    # One that was trained here takes the last step too: Karlo's other network was distilled for it.
    for name, network in {
        "super_res_first": part.network,
        "super_res_last": part.last or part.network,
    }.items():
        networks[name] = (upsampler.diffusers_config(network.config), network.state_dict())
    return networks


def _sampled(unclip: Unclip) -> dict[str, Part]:
    """Scheduler → the part that is sampled with it."""
    (upsampler_part,) = unclip.upsamplers
    sampled: dict[str, Part] = {"decoder_scheduler": unclip.decoder, "super_res_scheduler": upsampler_part}
    return sampled if not isinstance(unclip.prior, Part) else sampled | {"prior_scheduler": unclip.prior}


def _unet_weights(part: Part[decoder.Decoder]) -> dict[str, Tensor]:
    """The decoder's U-Net; one that learned no variance is made to say "the smallest" everywhere.

    UnCLIPPipeline splits six channels whatever the scheduler's variance is. The last three are v of eq. 15 of
    Nichol & Dhariwal 2021 scaled to [-1, 1], and v = -1 is the fixed small variance exactly.
    """
    weights = dict(part.network.unet.state_dict())
    if not part.objective.learned_variance:
        weight, bias = weights["conv_out.weight"].clone(), weights["conv_out.bias"].clone()
        weight[3:], bias[3:] = 0.0, -1.0
        weights |= {"conv_out.weight": weight, "conv_out.bias": bias}
    return weights


def _write_config(folder: Path, part: str, config: Mapping[str, Any], diffusers_version: str) -> None:
    """The whole config, as diffusers itself writes it."""
    header = {"_class_name": CLASSES[part][1], "_diffusers_version": diffusers_version}
    storage.publish_json(str(folder / part / config_name(part)), header | default_config(part) | dict(config))


def _report_at(to: str) -> dict[str, Any] | None:
    """The report of an earlier export to the same place; the index is published last."""
    if not all(storage.exists(storage.join(to, name)) for name in (INDEX, EXPORT_REPORT)):
        return None
    report = storage.read_json(storage.join(to, EXPORT_REPORT))
    return report if isinstance(report, dict) and "proof" in report else None
