"""Text → image embedding.

Legend: B prompts, K draws for each, E embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dalle2_train.encoders.captions import Text
from dalle2_train.generation.config import PriorStageConfig
from dalle2_train.generation.halves import both_halves, guided, repeated, twice
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.stage import Tick, run_stage
from dalle2_train.generation.unclip import Part
from dalle2_train.networks.prior import Prior


def run_prior(
    part: Part[Prior],
    text: Text,
    null_text: Text,
    draws: Draws,
    config: PriorStageConfig,
    tick: Tick,
) -> Tensor:
    """What the prior is told of the text (B) and of none (1) → image embeddings (B, E) in CLIP's own scale."""
    network, scale, num_draws = part.network, config.guidance_scale, config.num_draws
    both = network.read(*both_halves(repeated(text, num_draws), null_text, scale))  # (2·K·B, …) or (K·B, …)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        prediction = network.predict(*twice(x_t, t, scale), *both)
        return guided(prediction, scale, rescale=config.guidance_rescale)  # (K·B, E)

    shape, draws = (network.config.embed_dim,), draws._replace(num_draws=num_draws)
    drawn = network.denormalise(run_stage(part, "prior", denoise, shape, config, draws, tick))
    return nearest_to_text(drawn.unflatten(0, (num_draws, -1)), text.text_embed)


def nearest_to_text(drawn: Tensor, text_embed: Tensor) -> Tensor:
    """Of K image embeddings a prompt, (K, B, E), those with the highest cosine with the text's (B, E): (B, E).

    The paper's embeddings have length 1, so its dot product is the cosine; ours have any, and a long one is no better.
    """
    best = F.cosine_similarity(drawn, text_embed.to(drawn), dim=-1).argmax(dim=0)  # (B,)
    return drawn[best, torch.arange(drawn.shape[1], device=drawn.device)]
