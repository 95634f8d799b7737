"""diffusers' configs as ours: the inverse of each network's `diffusers_config`; what ours cannot compute is refused."""

from collections.abc import Mapping
from typing import Any

from dalle2_train.config import build
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.errors import InputError
from dalle2_train.export.part_folder import check_config
from dalle2_train.export.scheduler import scheduler_config
from dalle2_train.networks import decoder, prior, upsampler
from dalle2_train.networks.decoder import DecoderConfig
from dalle2_train.networks.prior import PriorConfig
from dalle2_train.networks.upsampler import UpsamplerConfig

Found = Mapping[str, Any]
"""A part's config as `read_config` gives it."""

_CONTEXT_BLOCK = "SimpleCrossAttnDownBlock2D"


def prior_config(found: Found) -> PriorConfig:
    """Of a PriorTransformer's config."""
    config = _build(PriorConfig, "prior", found, {
        "embed_dim": "embedding_dim",
        "num_text_tokens": "num_embeddings",
        "depth": "num_layers",
        "num_heads": "num_attention_heads",
        "head_dim": "attention_head_dim",
        "dropout": "dropout",
    })  # fmt: skip
    # Widths that are None by default may also be spelt out.
    implied = {
        "time_embed_dim": config.width,
        "embedding_proj_dim": config.embed_dim,
        "clip_embed_dim": config.embed_dim,
    }
    spelt = {key: value for key, value in implied.items() if found[key] is not None}
    check_config("prior", found, prior.diffusers_config(config) | spelt)
    return config


def decoder_config(found: Found, text_proj: Found) -> DecoderConfig:
    """Of the configs of a UNet2DConditionModel and of the UnCLIPTextProjModel before it."""
    blocks = found["down_block_types"]
    config = _build(DecoderConfig, "decoder", found, {
        "image_size": "sample_size",
        "channels": "block_out_channels",
        "num_resnets": "layers_per_block",
        "head_dim": "attention_head_dim",
        "context_dim": "cross_attention_dim",
        "time_dim": "time_embedding_dim",
        "num_groups": "norm_num_groups",
        "dropout": "dropout",
    }, attention=[block == _CONTEXT_BLOCK for block in blocks],
       embed_dim=text_proj["clip_embeddings_dim"],
       num_extra_tokens=text_proj["clip_extra_context_tokens"])  # fmt: skip
    check_config("decoder", found, decoder.diffusers_config(config), _INERT)
    check_config("text_proj", text_proj, decoder.diffusers_text_proj_config(config))
    return config


def upsampler_config(part: str, found: Found, low_size: int) -> UpsamplerConfig:
    """Of a UNet2DModel's config; low_size: the size of the decoder's pictures."""
    config = _build(UpsamplerConfig, part, found, {
        "high_size": "sample_size",
        "channels": "block_out_channels",
        "num_resnets": "layers_per_block",
        "num_groups": "norm_num_groups",
        "dropout": "dropout",
    }, low_size=low_size)  # fmt: skip
    spelt = {} if found["time_embedding_dim"] is None else {"time_embedding_dim": 4 * config.channels[0]}
    check_config(
        part, found, upsampler.diffusers_config(config) | spelt, (*_INERT, *_INERT_WITHOUT_ATTENTION)
    )
    return config


# Resolution changes in residual blocks, which pad nothing.
_INERT = ("downsample_padding",)
_INERT_WITHOUT_ATTENTION = ("attention_head_dim", "attn_norm_num_groups", "downsample_type", "upsample_type",
                            "num_train_timesteps")  # fmt: skip


def diffusion_configs(part: str, found: Found) -> tuple[ScheduleConfig, ObjectiveConfig]:
    """Of an UnCLIPScheduler's config, for the prior, the decoder or the upsampler."""
    if found["prediction_type"] not in ("epsilon", "sample"):
        raise InputError(
            f"{part}: prediction_type is {found['prediction_type']!r}; ours are epsilon and sample"
        )
    schedule = build(
        ScheduleConfig, {"num_steps": found["num_train_timesteps"]}, f"{part}: num_train_timesteps"
    )
    objective = ObjectiveConfig(
        prediction_type=found["prediction_type"], learned_variance=found["variance_type"] == "learned_range"
    )
    check_config(part, found, scheduler_config(part, schedule, objective))
    return schedule, objective


def _build(config_type: type, part: str, found: Found, names: Mapping[str, str], **more: Any) -> Any:
    """names: our field → diffusers' key."""
    return build(
        config_type, {ours: found[theirs] for ours, theirs in names.items()} | more, f"{part}/config.json"
    )
