"""Text → codes → image embedding.

Legend: B prompts, E embedding, K codes, V buckets.
"""

import torch
from torch import Tensor, nn

from dalle2_train import seeding
from dalle2_train.diffusion.guidance import guide
from dalle2_train.encoders.captions import Text
from dalle2_train.generation.config import ArPriorStageConfig
from dalle2_train.generation.halves import both_halves
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.stage import Tick
from dalle2_train.generation.unclip import ArPriorPart
from dalle2_train.networks.ar_prior import ArPriorConfig
from dalle2_train.networks.cache import KeyValueCache


def run_ar_prior(
    part: ArPriorPart,
    text: Text,
    null_text: Text,
    draws: Draws,
    config: ArPriorStageConfig,
    tick: Tick,
) -> Tensor:
    """What the prior is told of the text (B) and of none (1) → image embeddings (B, E) in CLIP's own scale."""
    shape = part.network.config
    uniform = code_draws(draws.seed, "generation/ar_prior", draws.index, shape)  # (B, 1 + K)
    codes = sample_codes(part.network, shape, text, null_text, uniform, config, tick)  # (B, K)
    return part.network.embed_codes.decode(codes)


def code_draws(seed: int, purpose: str, index: Tensor, config: ArPriorConfig) -> Tensor:
    """The numbers in [0, 1) that decide a sample, (B, 1 + K) float64: for its similarity, then for each code."""
    steps = range(1 + config.num_dims)
    return torch.stack([seeding.uniform(seed, purpose, step, index) for step in steps], dim=1)


def sample_codes(
    network: nn.Module,
    shape: ArPriorConfig,
    text: Text,
    null_text: Text,
    uniform: Tensor,
    config: ArPriorStageConfig,
    tick: Tick = lambda: None,
) -> Tensor:
    """Codes (B, K) by an `ArPrior` of that `shape`, for the text (B) at a similarity from the top half of those in
    training. `network` is only called, so that it may be one whose weights are sharded."""
    scale, count = config.guidance_scale, len(uniform)
    both = both_halves(text, null_text, scale)  # (2B, …) or (B, …)
    device = text.text_embed.device
    uniform = uniform.to(device)
    dot_bucket = top_half(uniform[:, 0], shape.num_dot_buckets)  # (B,)
    if scale != 1:
        unknown = torch.full_like(dot_bucket, shape.num_dot_buckets)
        dot_bucket = torch.cat([unknown, dot_bucket])  # (2B,)
    cache = KeyValueCache(shape.depth)
    codes = torch.empty(count, 0, dtype=torch.int64, device=device)
    for place in range(shape.num_dims):
        shown = codes if scale == 1 else torch.cat([codes, codes])
        logits = network(shown, dot_bucket, *both, cache)[:, -1].double()  # (2B, V) or (B, V)
        if scale != 1:
            uncond, cond = logits.chunk(2)
            logits = guide(cond, uncond, scale)
        code = draw_code(logits, uniform[:, 1 + place], config.temperature, config.top_p)  # (B,)
        codes = torch.cat([codes, code[:, None]], dim=1)
        tick()
    return codes


def top_half(uniform: Tensor, num_buckets: int) -> Tensor:
    """Numbers (B,) in [0, 1) → buckets (B,) of the upper half; all are equally frequent."""
    lowest = num_buckets // 2
    return lowest + (uniform * (num_buckets - lowest)).long()


def draw_code(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Codes (B,) from logits (B, V) by the inverse of the distribution function at `uniform` (B,) in [0, 1).

    Logits are divided by the temperature, 0 takes the likeliest; of the likeliest codes are kept those before which
    less than `top_p` of the probability lies (Holtzman et al. 2020).
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    odds = (logits / temperature).softmax(dim=-1)  # (B, V)
    if top_p < 1:
        sorted_odds, order = odds.sort(dim=-1, descending=True)
        before = sorted_odds.cumsum(dim=-1) - sorted_odds
        odds = torch.zeros_like(odds).scatter(-1, order, sorted_odds * (before < top_p))
    below = odds.cumsum(dim=-1)  # (B, V)
    found = torch.searchsorted(below, uniform[:, None] * below[:, -1:], right=True)
    return found.squeeze(1).clamp(max=logits.shape[1] - 1)
