"""What a model in training can do, as a picture: every rank draws it in lockstep, with noise keyed by the seed.

Legend: B pictures, H W their size, h w that of the small ones.
"""

import torch
from PIL import Image
from torch import Tensor, nn

from dalle2_train import seeding
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import InputError
from dalle2_train.generation.config import IMAGE_CLIP_RANGE
from dalle2_train.generation.grid import compare
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.launch.drawing import draw_samples, guided, like, repeated
from dalle2_train.launch.examples import Examples, load_examples, resized
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.nearest import ar_prior_sampler, prior_sampler
from dalle2_train.networks.upsampler import enlarge
from dalle2_train.recipe import SamplingConfig
from dalle2_train.training.ar_prior import ArPriorModule
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.decoder import DecoderModule
from dalle2_train.training.degradation import shrink
from dalle2_train.training.denoising import to_signal
from dalle2_train.training.direct import DirectModule
from dalle2_train.training.prior import PriorModule
from dalle2_train.training.protocols import Sampler
from dalle2_train.training.texts import caption_reader
from dalle2_train.training.upsampler import UpsamplerModule

# What the prior's embeddings are looked up among.
_MAX_CANDIDATES = 512


def build_sampler(job: TrainJob, module: UnclipModule, clip: ClipEncoder | None) -> Sampler | None:
    """The family's sampler; None for CLIP, which draws nothing. Raises InputError where prompts make no sense."""
    prompts, count = list(job.recipe.sampling.prompts), job.recipe.sampling.num_samples
    if isinstance(module, PriorModule):
        assert clip is not None
        candidates = load_examples(job, _MAX_CANDIDATES, clip.image_size)
        return prior_sampler(job, module, clip, candidates, prompts or candidates.first(count).captions)
    if isinstance(module, ArPriorModule):
        assert clip is not None
        _check_num_steps(job)
        candidates = load_examples(job, _MAX_CANDIDATES, clip.image_size)
        return ar_prior_sampler(job, module, clip, candidates, prompts or candidates.first(count).captions)
    if isinstance(module, DecoderModule):
        assert clip is not None
        examples = (
            None
            if prompts
            else load_examples(job, count, max(clip.image_size, module.network.config.image_size))
        )
        return _decoder_sampler(job, module, clip, examples, prompts)
    if isinstance(module, UpsamplerModule):
        if prompts:
            raise InputError(
                "sampling.prompts: an upsampler enlarges pictures and reads no prompt; leave it empty"
            )
        return _upsampler_sampler(job, module, load_examples(job, count, module.network.config.high_size))
    if isinstance(module, DirectModule):
        assert clip is not None
        _check_draws_at_once(job)
        examples = None if prompts else load_examples(job, count, module.network.config.image_size)
        return _direct_sampler(module, clip, examples, prompts)
    return None


def _check_num_steps(job: TrainJob) -> None:
    found = job.recipe.sampling.num_steps
    if found != SamplingConfig().num_steps:
        raise InputError(
            f"sampling.num_steps is {found}, but an ar_prior takes a step for each code; leave it out"
        )


def _check_draws_at_once(job: TrainJob) -> None:
    for name in ("num_steps", "guidance_scale"):
        if getattr(job.recipe.sampling, name) != getattr(SamplingConfig(), name):
            raise InputError(
                f"sampling.{name}: a direct model draws in one forward, without guidance; leave it out"
            )


def _decoder_sampler(
    job: TrainJob, module: DecoderModule, clip: ClipEncoder, examples: Examples | None, prompts: list[str]
) -> Sampler:
    """Of examples: ours from the true image embeddings, the real ones beside. Of prompts: ours from text alone."""
    text = caption_reader(clip, module.network).read(examples.captions if examples else prompts)
    count, scale = len(text.text_embed), job.recipe.sampling.guidance_scale
    image_embed = (
        torch.zeros(count, clip.embed_dim) if examples is None else clip.encode_image(examples.images)
    )
    size = module.network.config.image_size

    def draw(network: nn.Module) -> Image.Image:
        def predict(x_t: Tensor, t: Tensor, has_condition: bool) -> Tensor:
            context = text if has_condition else repeated(module.null_text, count)
            # The null embedding is learned and may be sharded: only the network's forward has it whole.
            keep = torch.full((count,), has_condition and examples is not None, device=x_t.device)
            return network(x_t, t, image_embed.to(x_t), *like(context, x_t), keep)

        ours = draw_samples(job, module, (count, 3, size, size), IMAGE_CLIP_RANGE, guided(predict, scale, 3))
        rows = {"ours": to_uint8(ours).cpu()}
        if examples is not None:
            rows["real"] = resized(examples.images, size)
        return compare(rows, examples.captions if examples else prompts)

    return draw


def _direct_sampler(
    module: DirectModule, clip: ClipEncoder, examples: Examples | None, prompts: list[str]
) -> Sampler:
    """Ours, and beside them the real ones of examples."""
    captions = examples.captions if examples else prompts
    tokens = clip.tokenize(captions)

    def draw(network: nn.Module) -> Image.Image:
        ours = network(*(part.to(module.device) for part in tokens))  # (B, 3, H, W)
        rows = {"ours": to_uint8(ours).cpu()}
        if examples is not None:
            rows["real"] = examples.images
        return compare(rows, captions)

    return draw


def _upsampler_sampler(job: TrainJob, module: UpsamplerModule, examples: Examples) -> Sampler:
    """The small picture, as bad as in training where that is drawn with the data; ours, the real one."""
    config = module.network.config
    small = _small(job, module, examples.images)  # (B, 3, h, w)
    low_res_image = enlarge(small, config.high_size)  # (B, 3, H, W)

    def draw(network: nn.Module) -> Image.Image:
        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return network(x_t, t, low_res_image.to(x_t))

        ours = draw_samples(job, module, tuple(examples.images.shape), IMAGE_CLIP_RANGE, denoise)
        rows = {"low": to_uint8(low_res_image), "ours": to_uint8(ours).cpu(), "real": examples.images}
        return compare(rows, examples.captions)

    return draw


def _small(job: TrainJob, module: UpsamplerModule, images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 → (B, 3, h, w) in [-1, 1]."""
    degrade = module.config.degradation_in_data
    if degrade is None:
        return shrink(to_signal(images, torch.float32), module.network.config.low_size)
    keys = (seeding.key(job.recipe.training.seed, "sampling", number) for number in range(len(images)))
    pictures = images.permute(0, 2, 3, 1).numpy()
    small = [torch.from_numpy(degrade(*pair)) for pair in zip(pictures, keys, strict=True)]
    return to_signal(torch.stack(small).permute(0, 3, 1, 2), torch.float32)
