"""Train the autoregressive prior: codes of CLIP image embeddings from captions (§2.2 of unCLIP).

Legend: B batch, L text length, E embedding, K codes, V buckets.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dalle2_train.data.stream.batches import PriorBatch, PriorTokenBatch
from dalle2_train.encoders.captions import Text
from dalle2_train.errors import InputError
from dalle2_train.networks.ar_prior import ArPrior, ArPriorConfig
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.denoising import check_probability, drop_text
from dalle2_train.training.draws import keep
from dalle2_train.training.protocols import Loss
from dalle2_train.training.texts import EncodeText, text_of


@dataclass(frozen=True)
class ArPriorModelConfig:
    """The autoregressive prior, and how often it learns without text."""

    network: ArPriorConfig
    condition_dropout: float = 0.1
    """Share of samples whose text is replaced by that of the empty caption, and whose similarity is not told."""

    def __post_init__(self) -> None:
        check_probability("condition_dropout", self.condition_dropout)


class ArPriorModule(UnclipModule):
    """One update of the prior, whose network carries the embeddings' statistics (`use_components`, `use_dots`)."""

    kind = "ar_prior"
    network: ArPrior

    def __init__(
        self,
        network: ArPrior,
        config: ArPriorModelConfig,
        null_text: Text,
        training: TrainingConfig,
        optimizer: OptimizerConfig,
        parallel: ParallelConfig | None = None,
    ) -> None:
        """`null_text`: what stands for no text, B=1."""
        super().__init__(network, training, optimizer, parallel)
        self.condition_dropout = config.condition_dropout
        self.null_text = null_text
        self.encode_text: EncodeText | None = None  # of batches of tokens

    def compute_loss(self, batch: PriorBatch | PriorTokenBatch, step: int) -> Loss:
        network = self.network
        text = text_of(batch, self.encode_text)  # (B, E), (B, L, E) or (B, L), (B, L)
        codes = network.embed_codes.encode(batch.image_embed)  # (B, K)
        dot_bucket = network.dot_bucket(batch.image_embed, text.text_embed)  # (B,)
        kept = keep(self.seed, "text", step, batch.index, self.condition_dropout)  # (B,)
        text = drop_text(text, self.null_text, kept)
        dot_bucket = torch.where(kept, dot_bucket, network.unknown_dot)
        logits = network(codes[:, :-1], dot_bucket, *text)  # (B, K, V)
        loss = F.cross_entropy(logits.flatten(0, 1), codes.flatten())
        return Loss(loss, _metrics(network, loss, logits, codes, batch.image_embed))


@torch.no_grad()
def _metrics(
    network: ArPrior, loss: Tensor, logits: Tensor, codes: Tensor, image_embed: Tensor
) -> dict[str, Tensor]:
    """Bits per code; the cosine of the expected embedding, each code told the true ones before it; the share that codes
    lose of the variance of the embeddings that the components are of. All are means over samples."""
    known = network.embed_codes
    truth = image_embed.to(known.mean.dtype)  # (B, E)
    with torch.autocast(truth.device.type, enabled=False):
        expected = logits.to(truth.dtype).softmax(dim=-1) @ known.levels  # (B, K)
    lost = (truth - known.decode(codes)).square().sum(dim=-1).mean() / known.variance
    cosine = F.cosine_similarity(known.from_components(expected), truth, dim=-1).mean()
    return {"bits_per_code": loss / math.log(2), "cosine": cosine, "code_error": lost}


@torch.no_grad()
def use_components(network: ArPrior, mean: Sequence[float], covariance: Tensor) -> None:
    """Take the codes' directions from an embedded set's mean (E,) and covariance (E, E).

    Raises InputError where their length is not E, or where the embeddings vary along too few directions.
    """
    embed_dim = network.config.embed_dim
    if len(mean) != embed_dim:
        raise InputError(
            f"the embeddings have {len(mean)} dimensions, network.embed_dim is {embed_dim}; make them equal"
        )
    network.embed_codes.fit(torch.tensor(mean, dtype=torch.float64), covariance)


def left_out(network: ArPrior, covariance: Tensor) -> float:
    """The share of the variance of embeddings with `covariance` (E, E) float64 along none of the codes' directions."""
    directions = network.embed_codes.directions.double()  # (K, E)
    return 1 - float((directions @ covariance * directions).sum() / covariance.trace())


@torch.no_grad()
def use_dots(
    module: ArPriorModule, batches: Iterable[PriorBatch | PriorTokenBatch], num_samples: int
) -> None:
    """Part the similarities of pictures and captions at the quantiles of the first `num_samples`, or a few more.

    Buckets are then equally frequent, and the upper half of them is the top half that sampling draws from.
    """
    cosines: list[Tensor] = []
    for batch in batches:
        text_embed = text_of(batch, module.encode_text).text_embed
        cosines.append(F.cosine_similarity(batch.image_embed.double(), text_embed.double(), dim=-1))
        if sum(map(len, cosines)) >= num_samples:
            break
    num_buckets = module.network.config.num_dot_buckets
    shares = torch.arange(1, num_buckets, dtype=torch.float64) / num_buckets
    module.network.dot_edges.copy_(torch.quantile(torch.cat(cosines), shares))
