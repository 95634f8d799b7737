"""Text → image embedding.

Legend: B prompts, E embedding.
"""

from torch import Tensor

from dalle2_train.encoders.encoder import TextFeatures
from dalle2_train.generation.config import PriorStageConfig
from dalle2_train.generation.halves import both_halves, guided, twice
from dalle2_train.generation.load import Part
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.stage import Tick, run_stage
from dalle2_train.networks.prior import Prior


def run_prior(
    part: Part[Prior],
    text: TextFeatures,
    null_text: TextFeatures,
    draws: Draws,
    config: PriorStageConfig,
    tick: Tick,
) -> Tensor:
    """Text features (B) and those of the empty string (1) → image embeddings (B, E) in CLIP's own scale."""
    network, scale = part.network, config.guidance_scale
    both = both_halves(text, null_text, scale)  # (2B, …) or (B, …)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return guided(network(*twice(x_t, t, scale), *both), scale)  # (B, E)

    shape = (network.config.embed_dim,)
    return network.denormalise(run_stage(part, "prior", denoise, shape, config, draws, tick))
