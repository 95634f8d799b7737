"""What the decoder reads as the image embedding where no prior predicts one.

Legend: B prompts, E embedding.
"""

import torch.nn.functional as F
from torch import Tensor

from dalle2_train.checkpoints import ModelManifest
from dalle2_train.errors import InputError
from dalle2_train.generation.config import PRIORS, GenerationConfig, check_prior_sections
from dalle2_train.generation.unclip import Unclip


def check_embed(unclip: Unclip, config: GenerationConfig) -> None:
    """InputError where `generation.decoder.image_embed` asks a prior that is not there or a length that is not known,
    or where the section of another kind of prior than the one there was set."""
    if config.decoder.image_embed == "text":
        _norm(unclip.decoder.manifest)
    if config.decoder.image_embed == "prior" and unclip.prior is None:
        raise InputError(
            "there is no prior, which generation.decoder.image_embed=prior asks; give one, or set it to text or none"
        )
    if unclip.prior is not None:
        plain = GenerationConfig()
        given = {name for name in PRIORS if getattr(config, name) != getattr(plain, name)}
        check_prior_sections(unclip.prior.manifest.kind, given)


def text_as_image_embed(decoder: ModelManifest, text_embed: Tensor) -> Tensor:
    """`text_embed` (B, E) as if it were an image embedding: at the mean length of those that the decoder learned from.

    The paper's z_t is used as it is (§5.1), for its embeddings are normalised; ours keep CLIP's own lengths, which
    differ between texts and pictures. Raises InputError where the manifest knows of no length.
    """
    return F.normalize(text_embed, dim=-1) * _norm(decoder)


def _norm(decoder: ModelManifest) -> float:
    if decoder.image_embed_norm is None:
        raise InputError(
            "generation.decoder.image_embed=text: the decoder's manifest does not say how long image embeddings are "
            "(image_embed_norm), as of imports without a prior's statistics and of older trainings; set "
            "image_embed=prior, or fine-tune the decoder with train --init-from"
        )
    return decoder.image_embed_norm
