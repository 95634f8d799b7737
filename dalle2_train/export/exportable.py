"""What diffusers' unCLIP can hold of our models: the rest is refused by name."""

from collections.abc import Sequence
from dataclasses import replace

from dalle2_train.errors import RefusedError
from dalle2_train.export.diffusers_names import IMAGE_VARIATION, TEXT_TO_IMAGE
from dalle2_train.generation.direct import DirectModel
from dalle2_train.generation.drawing import load_model
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.unclip import ArPriorPart, Part, Unclip
from dalle2_train.networks import decoder


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
