"""Diffusers unCLIP folders with random weights, written by diffusers itself: Karlo's architecture, narrow."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from dalle2_train.encoders.clip import special_ids
from dalle2_train.encoders.tokenizer import train_tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import (
        PriorTransformer,
        UnCLIPImageVariationPipeline,
        UnCLIPPipeline,
        UnCLIPScheduler,
        UNet2DConditionModel,
        UNet2DModel,
    )
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

EMBED_DIM, CONTEXT_LENGTH, IMAGE_SIZE, SMALL, LARGE = 32, 16, 16, 16, 32
CAPTIONS = ["a red heart", "an old dog looks at the moon"] * 3

PRIOR = {"num_attention_heads": 2, "attention_head_dim": 18, "num_layers": 2, "embedding_dim": EMBED_DIM,
         "num_embeddings": CONTEXT_LENGTH}  # fmt: skip
DECODER: dict[str, Any] = {
    "sample_size": SMALL, "in_channels": 3, "out_channels": 6, "block_out_channels": (32, 64, 96),
    "layers_per_block": 1, "cross_attention_dim": 40, "class_embed_type": "identity", "attention_head_dim": 16,
    "resnet_time_scale_shift": "scale_shift", "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "down_block_types": ("ResnetDownsampleBlock2D", *2 * ("SimpleCrossAttnDownBlock2D",)),
    "up_block_types": (*2 * ("SimpleCrossAttnUpBlock2D",), "ResnetUpsampleBlock2D"),
}  # fmt: skip
TEXT_PROJ = {"clip_embeddings_dim": EMBED_DIM, "cross_attention_dim": 40, "time_embed_dim": 128}
SUPER_RES: dict[str, Any] = {
    "sample_size": LARGE, "in_channels": 6, "out_channels": 3, "block_out_channels": (32, 64), "layers_per_block": 1,
    "down_block_types": 2 * ("ResnetDownsampleBlock2D",), "up_block_types": 2 * ("ResnetUpsampleBlock2D",),
    "add_attention": False,
}  # fmt: skip

# Karlo's own, from its configs.
KARLO_DECODER = DECODER | {
    "sample_size": 64, "block_out_channels": (320, 640, 960, 1280), "layers_per_block": 3,
    "cross_attention_dim": 1536, "attention_head_dim": 64,
    "down_block_types": ("ResnetDownsampleBlock2D", *3 * ("SimpleCrossAttnDownBlock2D",)),
    "up_block_types": (*3 * ("SimpleCrossAttnUpBlock2D",), "ResnetUpsampleBlock2D"),
}  # fmt: skip
KARLO_TEXT_PROJ = {"clip_embeddings_dim": 768, "cross_attention_dim": 1536, "time_embed_dim": 1280}
KARLO_SUPER_RES = SUPER_RES | {
    "sample_size": 256, "block_out_channels": (320, 640, 960, 1280), "layers_per_block": 3,
    "down_block_types": 4 * ("ResnetDownsampleBlock2D",), "up_block_types": 4 * ("ResnetUpsampleBlock2D",),
}  # fmt: skip


def write_pipeline(
    folder: Path, *, variation: bool = False, seed: int = 0, **changes: dict[str, Any]
) -> Path:
    """A text-to-image or image-variation folder. changes: part → keyword arguments of its class to replace."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        parts = _parts(changes) | _clip(variation)
        if variation:
            del parts["prior"], parts["prior_scheduler"]
        pipeline = (UnCLIPImageVariationPipeline if variation else UnCLIPPipeline)(**parts)
        pipeline.save_pretrained(folder)
    return folder


def _parts(changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    def made(part: str, cls: Any, config: dict[str, Any]) -> Any:
        model = cls(**config | changes.get(part, {}))
        if isinstance(model, nn.Module):
            randomise(model)
        return model

    return {
        "prior": made("prior", PriorTransformer, PRIOR),
        "decoder": made("decoder", UNet2DConditionModel, DECODER),
        "text_proj": made("text_proj", UnCLIPTextProjModel, TEXT_PROJ),
        "super_res_first": made("super_res_first", UNet2DModel, SUPER_RES),
        "super_res_last": made("super_res_last", UNet2DModel, SUPER_RES),
        "prior_scheduler": made(
            "prior_scheduler", UnCLIPScheduler, {"prediction_type": "sample", "clip_sample_range": 5.0}
        ),
        "decoder_scheduler": made("decoder_scheduler", UnCLIPScheduler, {"variance_type": "learned_range"}),
        "super_res_scheduler": made("super_res_scheduler", UnCLIPScheduler, {}),
    }


def _clip(variation: bool) -> dict[str, Any]:
    tokenizer = train_tokenizer(CAPTIONS, vocab_size=560, context_length=CONTEXT_LENGTH)
    sizes = {
        "intermediate_size": 64,
        "projection_dim": EMBED_DIM,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    text = CLIPTextConfig(vocab_size=560, hidden_size=EMBED_DIM, max_position_embeddings=CONTEXT_LENGTH,
                          **sizes, **special_ids(tokenizer))  # fmt: skip
    found: dict[str, Any] = {"tokenizer": tokenizer, "text_encoder": CLIPTextModelWithProjection(text)}
    if variation:
        vision = CLIPVisionConfig(hidden_size=48, image_size=IMAGE_SIZE, patch_size=8, **sizes)
        square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        found["image_encoder"] = CLIPVisionModelWithProjection(vision)
        found["feature_extractor"] = CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, crop_size=square
        )
    return found


def randomise(model: nn.Module) -> None:
    """Weights that leave no path silent, and none so loud that rounding is amplified without end."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.6 * parameter[0].numel() ** -0.5)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=0.2)
    if isinstance(model, PriorTransformer):
        nn.init.uniform_(model.clip_std, 0.5, 1.5)
