"""What a diffusers unCLIP folder is made of: its parts, their classes and files, and what their configs leave out."""

import importlib
import inspect
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dalle2_train.errors import InputError

INDEX = "model_index.json"
TEXT_TO_IMAGE, IMAGE_VARIATION = "UnCLIPPipeline", "UnCLIPImageVariationPipeline"

# Where diffusers 0.42 finds each class. Its own spelling for text_proj, ["diffusers", …], cannot be loaded
# (huggingface/diffusers#14008); the full module path can.
CLASSES = {
    "prior": ("diffusers", "PriorTransformer"),
    "decoder": ("diffusers", "UNet2DConditionModel"),
    "text_proj": ("diffusers.pipelines.deprecated.unclip.text_proj", "UnCLIPTextProjModel"),
    "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
    "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "feature_extractor": ("transformers", "CLIPImageProcessor"),
    "super_res_first": ("diffusers", "UNet2DModel"),
    "super_res_last": ("diffusers", "UNet2DModel"),
    "prior_scheduler": ("diffusers", "UnCLIPScheduler"),
    "decoder_scheduler": ("diffusers", "UnCLIPScheduler"),
    "super_res_scheduler": ("diffusers", "UnCLIPScheduler"),
}

_ONLY_IN = {
    TEXT_TO_IMAGE: {"prior", "prior_scheduler"},
    IMAGE_VARIATION: {"image_encoder", "feature_extractor"},
}


def parts_of(pipeline: str) -> list[str]:
    """The parts of a pipeline's class, by the names of their folders."""
    others = set().union(*(parts for name, parts in _ONLY_IN.items() if name != pipeline))
    return [part for part in CLASSES if part not in others]


def weights_name(part: str) -> str:
    """The file of a part's weights in its folder."""
    return (
        "diffusion_pytorch_model.safetensors" if CLASSES[part][0] != "transformers" else "model.safetensors"
    )


def config_name(part: str) -> str:
    """The file of a part's config in its folder."""
    return "scheduler_config.json" if part.endswith("scheduler") else "config.json"


def default_config(part: str) -> dict[str, Any]:
    """What the constructor of a part's diffusers class takes by default. Without diffusers: InputError."""
    diffusers_version()
    module, name = CLASSES[part]
    parameters = inspect.signature(getattr(importlib.import_module(module), name).__init__).parameters
    return {name: given.default for name, given in parameters.items() if given.default is not given.empty}


def diffusers_version() -> str:
    """Of the installed diffusers. InputError where there is none."""
    try:
        return version("diffusers")
    except PackageNotFoundError:
        raise InputError(
            "diffusers is not installed; install it with: pip install 'dalle2-train[export]'"
        ) from None
