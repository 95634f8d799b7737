"""An unCLIP of a few thousand random weights as model folders, the way training leaves them behind."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from dalle2_train import storage
from dalle2_train.checkpoints import ClipReference, FileEntry, ModelManifest
from dalle2_train.checkpoints.manifest import publish_manifest
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.encoders.clip import ClipConfig, build_clip, save_clip
from dalle2_train.encoders.loading import load_clip
from dalle2_train.encoders.tokenizer import train_tokenizer
from dalle2_train.networks.ar_prior import ArPrior, ArPriorConfig
from dalle2_train.networks.decoder import Decoder, DecoderConfig
from dalle2_train.networks.direct import Direct, DirectConfig
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.networks.text_encoder import TextEncoderConfig
from dalle2_train.networks.upsampler import Upsampler, UpsamplerConfig

EMBED_DIM, CONTEXT_LENGTH = 32, 16
CAPTIONS = ["a red heart", "a blue heart", "an old dog looks at the moon", "a small cat looks at the sea"] * 3

NETWORKS = {
    "prior": (
        Prior,
        PriorConfig(embed_dim=EMBED_DIM, num_text_tokens=CONTEXT_LENGTH, depth=2, num_heads=2, head_dim=16),
    ),
    "decoder": (
        Decoder,
        DecoderConfig(
            image_size=16,
            channels=(32, 64),
            num_resnets=1,
            attention=(False, True),
            head_dim=16,
            embed_dim=EMBED_DIM,
        ),
    ),
    "upsampler": (Upsampler, UpsamplerConfig(low_size=16, high_size=32, channels=(32, 64), num_resnets=1)),
}
AR_PRIOR = (
    ArPrior,
    ArPriorConfig(
        embed_dim=EMBED_DIM,
        num_text_tokens=CONTEXT_LENGTH,
        num_dims=5,
        num_buckets=8,
        num_dot_buckets=6,
        depth=2,
        num_heads=2,
        head_dim=16,
    ),
)
OBJECTIVES: dict[str, ObjectiveConfig] = {
    "prior": ObjectiveConfig(prediction_type="sample"),
    "decoder": ObjectiveConfig(learned_variance=True),
    "upsampler": ObjectiveConfig(),
}


def write_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP folder."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(CAPTIONS, vocab_size=600, context_length=CONTEXT_LENGTH)
    config = ClipConfig(
        embed_dim=EMBED_DIM,
        context_length=CONTEXT_LENGTH,
        vocab_size=600,
        text_depth=2,
        text_heads=2,
        image_size=16,
        patch_size=8,
        vision_width=32,
        vision_depth=1,
        vision_heads=2,
    )
    save_clip(build_clip(config, tokenizer), tokenizer, folder)
    return folder


def write_part(
    folder: Path,
    kind: str,
    clip: Path | None,
    *,
    objective: ObjectiveConfig | None = None,
    schedule: ScheduleConfig | None = None,
    network_config: Any = None,
) -> Path:
    """A model folder of one part; every weight is random, the zero-initialised ones too."""
    network_type, config = {**NETWORKS, "ar_prior": AR_PRIOR}[kind]
    config = network_config or config
    torch.manual_seed(len(kind))
    network = network_type(config)
    randomise(network)
    folder.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "model.safetensors")
    weights = folder / "model.safetensors"
    reference = None
    if clip is not None:
        reference = ClipReference(str(clip), load_clip(str(clip)).fingerprint)
    sections: dict[str, Any] = {"network": config}
    if kind != "ar_prior":
        sections |= {
            "schedule": schedule or ScheduleConfig(),
            "objective": objective or OBJECTIVES[kind],
        }
    manifest = ModelManifest(
        kind=kind,
        config={name: asdict(section) for name, section in sections.items()},
        clip=reference,
        files={"model.safetensors": FileEntry(storage.sha256_file(weights), weights.stat().st_size)},
    )
    publish_manifest(str(folder), manifest)
    return folder


def write_direct(folder: Path, clip: Path) -> Path:
    """A direct baseline's model folder, for the tokens of `clip`."""
    text_encoder = TextEncoderConfig(CONTEXT_LENGTH, vocab_size=600, width=32, depth=1, num_heads=2)
    config = DirectConfig(text_encoder, image_size=16, patch_size=4, depth=1, num_heads=2)
    torch.manual_seed(0)
    network = Direct(config)
    randomise(network)
    folder.mkdir(parents=True)
    weights = folder / "model.safetensors"
    save_file(network.state_dict(), weights)
    manifest = ModelManifest(
        kind="direct",
        config={"network": asdict(config)},
        clip=ClipReference(str(clip), load_clip(str(clip)).fingerprint),
        files={"model.safetensors": FileEntry(storage.sha256_file(weights), weights.stat().st_size)},
    )
    publish_manifest(str(folder), manifest)
    return folder


def write_second_upsampler(folder: Path) -> str:
    """Takes up what the other one makes, 32 → 64 pixels, on the paper's linear schedule."""
    config = UpsamplerConfig(low_size=32, high_size=64, channels=(32, 32), num_resnets=1)
    write_part(folder, "upsampler", None, network_config=config, schedule=ScheduleConfig("linear"))
    return str(folder)


def randomise(network: nn.Module) -> None:
    """Weights that leave no path of the network silent, and none so loud that rounding is amplified without end."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.6 * parameter[0].numel() ** -0.5)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=0.2)
    if isinstance(network, Prior):
        network.clip_mean.normal_(std=0.1)
        network.clip_std.uniform_(0.5, 1.5)
    if isinstance(network, ArPrior):
        mixed = torch.randn(EMBED_DIM, EMBED_DIM, dtype=torch.float64)
        network.embed_codes.fit(0.1 * torch.randn(EMBED_DIM), mixed @ mixed.T / EMBED_DIM)


def write_models(folder: Path) -> dict[str, str]:
    """clip, prior, decoder and upsampler: kind → folder."""
    clip = write_clip(folder / "clip")
    parts = {
        kind: str(write_part(folder / kind, kind, clip if kind != "upsampler" else None)) for kind in NETWORKS
    }
    return {"clip": str(clip), **parts}
