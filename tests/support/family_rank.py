"""All families, trained for a few steps by one rank or by two, weights in float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from families import CONTEXT_LENGTH, EMBED_DIM, null_text, random, random_pictures, random_text, rows
from toy_training import process_group, strategy_of

from dalle2_train.checkpoints.manifest import ModelManifest
from dalle2_train.data.pictures.bsr import BsrConfig
from dalle2_train.data.selection.selection import Ledger
from dalle2_train.data.stream.batches import (
    ClipBatch,
    DecoderBatch,
    DecoderTokenBatch,
    DegradedBatch,
    PriorBatch,
    PriorTokenBatch,
    UpsamplerBatch,
)
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.encoders import ClipConfig, ClipEncoder, TextFeatures, build_clip, tokenize, train_tokenizer
from dalle2_train.launch.local import one_rank_strategy
from dalle2_train.networks.ar_prior import ArPrior, ArPriorConfig
from dalle2_train.networks.decoder import Decoder, DecoderConfig
from dalle2_train.networks.direct import Direct, DirectConfig
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.networks.text_encoder import TextEncoderConfig
from dalle2_train.networks.upsampler import Upsampler, UpsamplerConfig
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training.ar_prior import ArPriorModelConfig, ArPriorModule, use_components
from dalle2_train.training.clip import ClipModelConfig, ClipModule
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.decoder import DecoderModelConfig, DecoderModule, whiten_image_embed
from dalle2_train.training.direct import DirectModule
from dalle2_train.training.fit import Setup, fit
from dalle2_train.training.prior import PriorModelConfig, PriorModule, use_statistics, whiten_error
from dalle2_train.training.strategy import MeshStrategy
from dalle2_train.training.texts import caption_reader
from dalle2_train.training.upsampler import UpsamplerModelConfig, UpsamplerModule

GLOBAL_BATCH, NUM_STEPS = 8, 3
CAPTIONS = [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("heart", "car", "apple", "hand")]
ClipSize = ClipConfig(
    embed_dim=EMBED_DIM,
    context_length=CONTEXT_LENGTH,
    vocab_size=560,
    text_depth=1,
    text_heads=2,
    image_size=8,
    patch_size=4,
    vision_width=16,
    vision_depth=1,
    vision_heads=2,
)


class Order:
    """No position is kept: these runs are not resumed."""

    delivered = quarantined = (0,)

    @classmethod
    def merge(cls, states: list["Order"]) -> "Order":
        return states[0]

    def to_json(self) -> dict[str, Any]:
        return {}


def double(text: TextFeatures) -> TextFeatures:
    return TextFeatures(text.text_embed.double(), text.text_encodings.double(), text.text_mask)


def clip(settings: Any) -> tuple[Any, Any]:
    tokenizer = train_tokenizer(CAPTIONS, ClipSize.vocab_size, CONTEXT_LENGTH)
    model = build_clip(ClipSize, tokenizer).double()
    batch = ClipBatch(torch.arange(8), random_pictures(8, 8), *tokenize(tokenizer, CAPTIONS))
    return ClipModule(model, tokenizer, ClipModelConfig(ClipSize), *settings), batch


def prior(settings: Any) -> tuple[Any, Any]:
    config = PriorModelConfig(
        PriorConfig(EMBED_DIM, CONTEXT_LENGTH, depth=2, num_heads=2, head_dim=8), whiten_error=True
    )
    network = Prior(config.network).double()
    use_statistics(network, [0.1] * EMBED_DIM, [1.5] * EMBED_DIM)
    batch = PriorBatch(torch.arange(8), random(8, EMBED_DIM).double(), *double(random_text(8)))
    module = PriorModule(network, config, double(null_text()), *settings)
    whiten_error(module, torch.linspace(1.0, 4.0, EMBED_DIM, dtype=torch.float64).diag())
    return module, batch


def ar_prior(settings: Any) -> tuple[Any, Any]:
    size = ArPriorConfig(
        EMBED_DIM,
        CONTEXT_LENGTH,
        num_dims=5,
        num_buckets=8,
        num_dot_buckets=4,
        depth=2,
        num_heads=2,
        head_dim=8,
    )
    network = ArPrior(size).double()
    variances = torch.linspace(2.0, 0.1, EMBED_DIM, dtype=torch.float64)
    use_components(network, [0.1] * EMBED_DIM, variances.diag())
    batch = PriorBatch(torch.arange(8), random(8, EMBED_DIM).double(), *double(random_text(8)))
    return ArPriorModule(network, ArPriorModelConfig(size), double(null_text()), *settings), batch


def decoder(settings: Any) -> tuple[Any, Any]:
    size = DecoderConfig(8, (32, 32), 1, (False, True), head_dim=16, embed_dim=EMBED_DIM)
    config = DecoderModelConfig(size, image_embed_dropout=0.5, whiten_image_embed=True)
    embeds = random(8, EMBED_DIM).double()
    batch = DecoderBatch(torch.arange(8), random_pictures(8, 8), embeds, *double(random_text(8)))
    network = Decoder(size).double()
    variances = torch.linspace(0.1, 2.0, EMBED_DIM, dtype=torch.float64)
    whiten_image_embed(network, [0.5] * EMBED_DIM, variances.diag())
    return DecoderModule(network, config, double(null_text()), *settings), batch


def upsampler(settings: Any) -> tuple[Any, Any]:
    config = UpsamplerModelConfig(UpsamplerConfig(4, 16, (32, 32), 1), crop_fraction=0.5)
    batch = UpsamplerBatch(torch.arange(8), random_pictures(8, 16))
    return UpsamplerModule(Upsampler(config.network).double(), config, *settings), batch


def direct(settings: Any) -> tuple[Any, Any]:
    text_encoder = TextEncoderConfig(CONTEXT_LENGTH, ClipSize.vocab_size, width=16, depth=1, num_heads=2)
    network = Direct(DirectConfig(text_encoder, image_size=8, patch_size=4, depth=2, num_heads=2)).double()
    tokenizer = train_tokenizer(CAPTIONS, ClipSize.vocab_size, CONTEXT_LENGTH)
    batch = ClipBatch(torch.arange(8), random_pictures(8, 8), *tokenize(tokenizer, CAPTIONS))
    return DirectModule(network, *settings), batch


OWN = TextEncoderConfig(context_length=9, vocab_size=ClipSize.vocab_size, width=16, depth=1, num_heads=2)


def frozen_clip() -> ClipEncoder:
    tokenizer = train_tokenizer(CAPTIONS, ClipSize.vocab_size, CONTEXT_LENGTH)
    return ClipEncoder(build_clip(ClipSize, tokenizer).double(), tokenizer)


def paper_prior(settings: Any) -> tuple[Any, Any]:
    size = PriorConfig(EMBED_DIM, 9, depth=1, num_heads=2, head_dim=8, text_encoder=OWN)
    network = Prior(size).double()
    reader = caption_reader(frozen_clip(), network)
    module = PriorModule(
        network, PriorModelConfig(size, condition_dropout=0.3), reader.null_text(), *settings
    )
    module.encode_text = reader.encode
    embeds = random(8, EMBED_DIM).double()
    return module, PriorTokenBatch(torch.arange(8), embeds, *reader.tokenize(CAPTIONS))


def paper_decoder(settings: Any) -> tuple[Any, Any]:
    size = DecoderConfig(8, (32, 32), 1, (False, True), head_dim=16, embed_dim=EMBED_DIM, text_encoder=OWN)
    network = Decoder(size).double()
    reader = caption_reader(frozen_clip(), network)
    module = DecoderModule(network, DecoderModelConfig(size, text_dropout=0.5), reader.null_text(), *settings)
    module.encode_text = reader.encode
    embeds = random(8, EMBED_DIM).double()
    tokens = reader.tokenize(CAPTIONS)
    return module, DecoderTokenBatch(torch.arange(8), random_pictures(8, 8), embeds, *tokens)


def second_upsampler(settings: Any) -> tuple[Any, Any]:
    config = UpsamplerModelConfig(
        UpsamplerConfig(4, 16, (32, 32), 1),
        ScheduleConfig("linear"),
        crop_fraction=0.5,
        degradation=BsrConfig(),
    )
    batch = DegradedBatch(torch.arange(8), random_pictures(8, 16), random_pictures(8, 4))
    return UpsamplerModule(Upsampler(config.network).double(), config, *settings), batch


FAMILIES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "clip": clip,
    "prior": prior,
    "ar_prior": ar_prior,
    "decoder": decoder,
    "upsampler": upsampler,
    "direct": direct,
    "paper_prior": paper_prior,
    "paper_decoder": paper_decoder,
    "second_upsampler": second_upsampler,
}


def train_all(runs: Path, make_strategy: Callable[[], MeshStrategy], precision: Any = "fp32") -> None:
    training = TrainingConfig(NUM_STEPS, GLOBAL_BATCH, seed=5, precision=precision, log_every_steps=1)
    settings = (training, OptimizerConfig(learning_rate=1e-2, weight_decay=0.1))
    for name, build in FAMILIES.items():
        torch.manual_seed(0)
        module, batch = build(settings)
        base = ModelManifest(kind=name, config={"test": 1})
        fit(module, Setup(lambda *_, batch=batch: OneBatch(batch), str(runs / name), base, make_strategy()))


class OneBatch:
    """The same batch at every step, a rank's part of it."""

    ledger: ClassVar = {"": Ledger(GLOBAL_BATCH, GLOBAL_BATCH, {}, {})}
    known_faults: ClassVar = ()
    max_faulty = 0.01

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __iter__(self):
        rank, world_size = dist.get_rank(), dist.get_world_size()
        for step in range(NUM_STEPS):
            index = torch.arange(GLOBAL_BATCH) + step * GLOBAL_BATCH
            part = torch.arange(rank, GLOBAL_BATCH, world_size)
            yield rows(self.batch._replace(index=index), part), Order()

    def close(self) -> None:
        pass


def train_alone(runs: Path) -> None:
    with one_rank_strategy(ParallelConfig()) as strategy:
        device = strategy.root_device
        train_all(runs, lambda: MeshStrategy(ParallelConfig(), device))


def train_ranks(rank: int, world_size: int, store: str, folder: Path) -> None:
    """A rank's share, in a process of its own: into two/ exactly, into bf16/ computed in bf16."""
    torch.set_num_threads(1)
    with process_group(rank, world_size, store):
        for name, precision in (("two", "fp32"), ("bf16", "bf16")):
            train_all(folder / name, lambda: strategy_of(rank, world_size, ParallelConfig()), precision)
