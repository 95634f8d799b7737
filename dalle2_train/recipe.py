"""The recipe: one frozen value that composes every config of a training, read from YAML with overrides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dalle2_train.config import build, check_keys, override, read_yaml
from dalle2_train.data.config import DataConfig
from dalle2_train.errors import InputError
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.recipes import FAMILIES, list_recipes, recipe_path
from dalle2_train.training.ar_prior import ArPriorModelConfig
from dalle2_train.training.clip import ClipModelConfig
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.decoder import DecoderModelConfig
from dalle2_train.training.direct import DirectModelConfig
from dalle2_train.training.prior import PriorModelConfig
from dalle2_train.training.upsampler import UpsamplerModelConfig, migrated
from dalle2_train.training.workers import WorkersConfig

__all__ = [
    "FAMILIES",
    "MODEL_CONFIGS",
    "ModelConfig",
    "Recipe",
    "SamplingConfig",
    "build_recipe",
    "list_recipes",
    "load_recipe",
]

ModelConfig = (
    ClipModelConfig
    | PriorModelConfig
    | ArPriorModelConfig
    | DecoderModelConfig
    | UpsamplerModelConfig
    | DirectModelConfig
)

MODEL_CONFIGS: dict[str, type[ModelConfig]] = {
    "clip": ClipModelConfig,
    "prior": PriorModelConfig,
    "ar_prior": ArPriorModelConfig,
    "decoder": DecoderModelConfig,
    "upsampler": UpsamplerModelConfig,
    "direct": DirectModelConfig,
}


@dataclass(frozen=True)
class SamplingConfig:
    """The pictures drawn while training goes on (every `training.sample_every_steps`) and how they are sampled."""

    prompts: tuple[str, ...] = ()  # captions; empty: the first ones of the validation split
    num_samples: int = 8  # pictures in a grid
    num_steps: int = 25  # sampling steps
    guidance_scale: float = 1.0  # 1: no guidance


@dataclass(frozen=True)
class Recipe:
    """All that decides a training, except where it reads and writes."""

    family: Literal["clip", "prior", "ar_prior", "decoder", "upsampler", "direct"]
    profile: Literal["paper", "karlo"]  # whose variant of unCLIP it follows where the two differ
    model: ModelConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    data: DataConfig
    parallel: ParallelConfig = ParallelConfig()
    sampling: SamplingConfig = SamplingConfig()
    workers: WorkersConfig = WorkersConfig()
    clip: str | None = None  # CLIP model: a URI, a run, a folder or a hub name; --clip replaces it
    embeddings: str | None = None  # shards with CLIP embeddings; --embeddings replaces it


def load_recipe(name_or_file: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe FAMILY/NAME or of a YAML file, with every "a.b=3" applied. Raises InputError for what doesn't fit."""
    path = recipe_path(name_or_file)
    return build_recipe(override(read_yaml(path.read_text(), str(path)), overrides))


def build_recipe(mapping: Mapping[str, Any]) -> Recipe:
    """The recipe that `mapping` holds, checked in its parts and as a whole. `config.to_dict` is the inverse."""
    check_keys(Recipe, mapping, "recipe")
    family = mapping.get("family")
    if family not in MODEL_CONFIGS:
        raise InputError(f"recipe.family: {family!r} is none of {', '.join(FAMILIES)}")
    settings = mapping.get("model") or {}
    if family == "upsampler":
        settings = migrated(settings)
    model = build(MODEL_CONFIGS[family], settings, "recipe.model")
    recipe = build(Recipe, {**mapping, "model": model})
    _check_whole(recipe)
    return recipe


def _check_whole(recipe: Recipe) -> None:
    """What no part can see alone. Raises InputError naming both knobs."""
    lanes, batch = recipe.data.num_lanes, recipe.training.global_batch_size
    if batch % lanes:
        raise InputError(
            f"recipe: training.global_batch_size {batch} must be a multiple of data.num_lanes {lanes}, which each give "
            f"an equal part of every batch; use {(batch // lanes + 1) * lanes}"
        )
    if recipe.profile == "karlo" and _has_text_encoder(recipe.model):
        raise InputError(
            "recipe.profile is karlo, where CLIP's text encoder serves the prior and the decoder: remove "
            "model.network.text_encoder, or set profile=paper"
        )
    size = _picture_size(recipe.model)
    if size is not None and size != recipe.data.image_size:
        raise InputError(
            f"recipe: data.image_size {recipe.data.image_size} must be {size}, the picture size of the model"
        )


def _has_text_encoder(model: ModelConfig) -> bool:
    return (
        isinstance(model, PriorModelConfig | ArPriorModelConfig | DecoderModelConfig)
        and model.network.text_encoder is not None
    )


def _picture_size(model: ModelConfig) -> int | None:
    """Pixels a side that the network is trained on; None where it sees no pictures."""
    match model:
        case ClipModelConfig():
            return model.encoder.image_size
        case DecoderModelConfig() | DirectModelConfig():
            return model.network.image_size
        case UpsamplerModelConfig():
            return model.network.high_size
        case PriorModelConfig() | ArPriorModelConfig():
            return None
