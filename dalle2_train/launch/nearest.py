"""What a prior in training has learned, as a picture: the real one that its embedding is nearest to.

Legend: B pictures, E embedding, K codes, N candidates.
"""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn

from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.generation.ar_prior import code_draws, sample_codes
from dalle2_train.generation.config import PRIOR_CLIP_RANGE, ArPriorStageConfig
from dalle2_train.generation.grid import compare
from dalle2_train.launch.drawing import draw_samples, guided, like, repeated
from dalle2_train.launch.examples import Examples
from dalle2_train.launch.job import TrainJob
from dalle2_train.training.ar_prior import ArPriorModule
from dalle2_train.training.prior import PriorModule
from dalle2_train.training.protocols import Sampler
from dalle2_train.training.texts import caption_reader


def prior_sampler(
    job: TrainJob, module: PriorModule, clip: ClipEncoder, candidates: Examples, captions: list[str]
) -> Sampler:
    """The real pictures nearest to what a diffusion prior samples for these captions."""
    text = caption_reader(clip, module.network).read(captions)
    count, scale = len(captions), job.recipe.sampling.guidance_scale

    def predict_embed(network: nn.Module) -> Tensor:
        def predict(x_t: Tensor, t: Tensor, has_condition: bool) -> Tensor:
            context = text if has_condition else repeated(module.null_text, count)
            return network(x_t, t, *like(context, x_t))

        found = draw_samples(
            job, module, (count, clip.embed_dim), PRIOR_CLIP_RANGE, guided(predict, scale, None)
        )
        return module.network.denormalise(found)  # (B, E)

    return _nearest(predict_embed, clip, candidates, captions)


def ar_prior_sampler(
    job: TrainJob, module: ArPriorModule, clip: ClipEncoder, candidates: Examples, captions: list[str]
) -> Sampler:
    """The real pictures nearest to the embeddings whose codes an autoregressive prior draws for these captions."""
    shape, config = (
        module.network.config,
        ArPriorStageConfig(guidance_scale=job.recipe.sampling.guidance_scale),
    )
    text, index = caption_reader(clip, module.network).read(captions), torch.arange(len(captions))
    uniform = code_draws(job.recipe.training.seed, "sampling", index, shape)  # (B, 1 + K)

    def predict_embed(network: nn.Module) -> Tensor:
        mean = module.network.embed_codes.mean
        both = like(text, mean), like(module.null_text, mean)
        codes = sample_codes(network, shape, *both, uniform, config)  # (B, K)
        return module.network.embed_codes.decode(codes)  # (B, E)

    return _nearest(predict_embed, clip, candidates, captions)


def _nearest(
    predict_embed: Callable[[nn.Module], Tensor],
    clip: ClipEncoder,
    candidates: Examples,
    captions: list[str],
) -> Sampler:
    """The real picture whose embedding is nearest to the predicted one; beside it the caption's own, if it has one."""
    known = torch.cat([clip.encode_image(images) for images in candidates.images.split(64)])  # (N, E)
    known = known / known.norm(dim=-1, keepdim=True)
    is_real = captions == candidates.first(len(captions)).captions

    def draw(network: nn.Module) -> Image.Image:
        predicted = predict_embed(network).cpu()  # (B, E)
        found = (predicted.to(known) @ known.T).argmax(dim=-1)  # (B,)
        rows = {"nearest": candidates.images[found]}
        if is_real:
            rows["real"] = candidates.images[: len(captions)]
        return compare(rows, captions)

    return draw
