"""An unCLIP as a folder that `diffusers.UnCLIPPipeline.from_pretrained` opens with no further argument.

Our networks carry diffusers' names, so weights are written as they are; what diffusers cannot hold is refused by
name.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig

from dalle2_train import storage
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.tokenizer import save_tokenizer
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.export.proof import PROOF_CONFIG, prove
from dalle2_train.export.release import model_digests
from dalle2_train.export.staging import check_free, file_names, refuse_damage, staged
from dalle2_train.generation.config import IMAGE_CLIP_RANGE, PRIOR_CLIP_RANGE, GenerationConfig
from dalle2_train.generation.direct import DirectModel
from dalle2_train.generation.drawing import load_model
from dalle2_train.generation.load import ArPriorPart, Part, Unclip
from dalle2_train.networks import decoder, prior, upsampler

EXPORT_REPORT = "export.json"
PROOF_PROMPTS = ("a red heart", "an old dog and a small cat look at the moon over the sea")

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_INDEX = "model_index.json"

# Where diffusers 0.42 finds each class. Its own spelling for text_proj, ["diffusers", …], cannot be loaded
# (huggingface/diffusers#14008); the full module path can.
_CLASSES = {
    "prior": ("diffusers", "PriorTransformer"),
    "decoder": ("diffusers", "UNet2DConditionModel"),
    "text_proj": ("diffusers.pipelines.deprecated.unclip.text_proj", "UnCLIPTextProjModel"),
    "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "super_res_first": ("diffusers", "UNet2DModel"),
    "super_res_last": ("diffusers", "UNet2DModel"),
    "prior_scheduler": ("diffusers", "UnCLIPScheduler"),
    "decoder_scheduler": ("diffusers", "UnCLIPScheduler"),
    "super_res_scheduler": ("diffusers", "UnCLIPScheduler"),
}


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
    prompts: Sequence[str] = PROOF_PROMPTS,
    proof_config: GenerationConfig = PROOF_CONFIG,
) -> DiffusersExport:
    """Writes the diffusers folder `to` (a folder or URI), after a fresh process has drawn our pictures with it.

    prompts, proof_config: what is drawn for the proof, and how; fewer steps suit a large model. A `to` that holds the
    export of these very models is left as it is.
    Errors: InputError as `load_unclip`, or when something else is at `to`, or without diffusers; RefusedError for
    what diffusers cannot hold, and when the proof fails. Then nothing is at `to`.
    """
    diffusers_version = _diffusers_version()
    unclip = load_exportable(models, clip=clip)
    digests = model_digests(unclip)
    report = _report_at(to)
    if report is None or report.get("models") != digests:
        check_free(to)
        check_exportable(unclip)
        with staged(to, last=_INDEX) as folder:
            write_folder(unclip, folder, diffusers_version)
            proof = asdict(prove(unclip, folder, prompts, proof_config))
            files = {name: storage.sha256_file(folder / name) for name in file_names(folder)}
            report = {"models": digests, "proof": proof, "files": files}
            storage.publish_json(str(folder / EXPORT_REPORT), report)
    else:
        refuse_damage(to, report.get("files", {}))
    return DiffusersExport(path=storage.absolute(to), models=digests, proof=report["proof"])


def load_exportable(models: Sequence[str], *, clip: str | None = None) -> Unclip:
    """`load_unclip`, but a direct baseline is refused by its name, with RefusedError."""
    model = load_model(models, clip=clip)
    if isinstance(model, DirectModel):
        raise RefusedError(
            f"{models[0]} is a direct baseline, which diffusers has no pipeline for; export it as safetensors"
        )
    return model


def check_exportable(unclip: Unclip) -> None:
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
    if unclip.prior is None:
        faults.append("there is no prior, which UnCLIPPipeline cannot do without")
    faults += _upsampler_faults(unclip)
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


def write_folder(unclip: Unclip, folder: Path, diffusers_version: str) -> None:
    """All files of the pipeline, unproved."""
    assert unclip.prior is not None and not isinstance(unclip.prior, ArPriorPart)
    (upsampler_part,) = unclip.upsamplers
    diffusion_decoder = unclip.decoder.network
    networks = {
        "prior": (prior.diffusers_config(unclip.prior.network.config), unclip.prior.network.state_dict()),
        "decoder": (decoder.diffusers_config(diffusion_decoder.config), _unet_weights(unclip.decoder)),
        "text_proj": (
            decoder.diffusers_text_proj_config(diffusion_decoder.config),
            diffusion_decoder.text_proj.state_dict(),
        ),
    }
    # One upsampler serves both names: Karlo's second one was distilled for the last step.
    for name in ("super_res_first", "super_res_last"):
        network = upsampler_part.network
        networks[name] = (upsampler.diffusers_config(network.config), network.state_dict())
    schedulers = {
        "prior_scheduler": _scheduler_config(unclip.prior, "fixed_small_log", PRIOR_CLIP_RANGE),
        # Always: see _unet_weights.
        "decoder_scheduler": _scheduler_config(unclip.decoder, "learned_range", IMAGE_CLIP_RANGE),
        "super_res_scheduler": _scheduler_config(upsampler_part, "fixed_small_log", IMAGE_CLIP_RANGE),
    }
    for name, (config, weights) in networks.items():
        _write_config(folder, name, "config.json", config, diffusers_version)
        _save_weights(weights, folder / name / _WEIGHTS)
    for name, config in schedulers.items():
        _write_config(folder, name, "scheduler_config.json", config, diffusers_version)
    _write_text_encoder(unclip.clip, folder / "text_encoder")
    save_tokenizer(unclip.clip.tokenizer, folder / "tokenizer")
    index = {name: list(place) for name, place in _CLASSES.items()}
    header = {"_class_name": "UnCLIPPipeline", "_diffusers_version": diffusers_version}
    storage.publish_json(str(folder / _INDEX), header | index)


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


def _scheduler_config(part: Part, variance_type: str, clip_sample_range: float) -> dict[str, Any]:
    return {
        "beta_schedule": "squaredcos_cap_v2",
        "num_train_timesteps": part.schedule_config.num_steps,
        "prediction_type": part.objective.prediction_type,
        "variance_type": variance_type,
        "clip_sample": True,
        "clip_sample_range": clip_sample_range,
    }


def _write_config(
    folder: Path, name: str, file: str, config: Mapping[str, Any], diffusers_version: str
) -> None:
    header = {"_class_name": _CLASSES[name][1], "_diffusers_version": diffusers_version}
    storage.publish_json(str(folder / name / file), header | dict(config))


def _write_text_encoder(clip: ClipEncoder, folder: Path) -> None:
    """The CLIP's text half as transformers' CLIPTextModelWithProjection."""
    config = cast(CLIPTextConfig, copy.deepcopy(clip.model.config.text_config))
    config.architectures = ["CLIPTextModelWithProjection"]
    config.projection_dim = clip.embed_dim
    config.save_pretrained(folder)
    halves = ("text_model.", "text_projection.")
    state = clip.model.state_dict()
    _save_weights({k: v for k, v in state.items() if k.startswith(halves)}, folder / "model.safetensors")


def _save_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    plain = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in weights.items()}
    save_file(plain, file, metadata={"format": "pt"})


def _report_at(to: str) -> dict[str, Any] | None:
    """The report of an earlier export to the same place; the index is published last."""
    if not all(storage.exists(storage.join(to, name)) for name in (_INDEX, EXPORT_REPORT)):
        return None
    report = storage.read_json(storage.join(to, EXPORT_REPORT))
    return report if isinstance(report, dict) and "proof" in report else None


def _diffusers_version() -> str:
    try:
        return version("diffusers")
    except PackageNotFoundError:
        raise InputError(
            "diffusers is not installed; install it with: pip install 'dalle2-train[export]'"
        ) from None
