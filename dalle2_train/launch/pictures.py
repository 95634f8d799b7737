"""What a model in training can do, as a picture: every rank draws it in lockstep, with noise keyed by the seed.

Legend: B pictures, E embedding, H W their size.
"""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn

from dalle2_train import seeding
from dalle2_train.diffusion.guidance import guide
from dalle2_train.diffusion.samplers import SamplerConfig, sample
from dalle2_train.encoders.captions import Text
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import InputError
from dalle2_train.generation.ar_prior import code_draws, sample_codes
from dalle2_train.generation.config import IMAGE_CLIP_RANGE, PRIOR_CLIP_RANGE, ArPriorStageConfig
from dalle2_train.generation.grid import compare
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.launch.examples import Examples, load_examples, resized
from dalle2_train.launch.job import TrainJob
from dalle2_train.networks.upsampler import enlarge
from dalle2_train.recipe import SamplingConfig
from dalle2_train.training.ar_prior import ArPriorModule
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.decoder import DecoderModule
from dalle2_train.training.degradation import shrink
from dalle2_train.training.denoising import DenoisingModule, to_signal
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
        return _prior_sampler(job, module, clip, candidates, prompts or candidates.first(count).captions)
    if isinstance(module, ArPriorModule):
        assert clip is not None
        _check_num_steps(job)
        candidates = load_examples(job, _MAX_CANDIDATES, clip.image_size)
        return _ar_prior_sampler(job, module, clip, candidates, prompts or candidates.first(count).captions)
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
            context = text if has_condition else _repeated(module.null_text, count)
            # The null embedding is learned and may be sharded: only the network's forward has it whole.
            keep = torch.full((count,), has_condition and examples is not None, device=x_t.device)
            return network(x_t, t, image_embed.to(x_t), *_like(context, x_t), keep)

        ours = _draw(job, module, (count, 3, size, size), IMAGE_CLIP_RANGE, _guided(predict, scale, 3))
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

        ours = _draw(job, module, tuple(examples.images.shape), IMAGE_CLIP_RANGE, denoise)
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


def _prior_sampler(
    job: TrainJob, module: PriorModule, clip: ClipEncoder, candidates: Examples, captions: list[str]
) -> Sampler:
    """What `_nearest` shows of a diffusion prior."""
    text = caption_reader(clip, module.network).read(captions)
    count, scale = len(captions), job.recipe.sampling.guidance_scale

    def predict_embed(network: nn.Module) -> Tensor:
        def predict(x_t: Tensor, t: Tensor, has_condition: bool) -> Tensor:
            context = text if has_condition else _repeated(module.null_text, count)
            return network(x_t, t, *_like(context, x_t))

        found = _draw(job, module, (count, clip.embed_dim), PRIOR_CLIP_RANGE, _guided(predict, scale, None))
        return module.network.denormalise(found)  # (B, E)

    return _nearest(predict_embed, clip, candidates, captions)


def _ar_prior_sampler(
    job: TrainJob, module: ArPriorModule, clip: ClipEncoder, candidates: Examples, captions: list[str]
) -> Sampler:
    """What `_nearest` shows of an autoregressive prior."""
    shape, config = (
        module.network.config,
        ArPriorStageConfig(guidance_scale=job.recipe.sampling.guidance_scale),
    )
    text, index = caption_reader(clip, module.network).read(captions), torch.arange(len(captions))
    uniform = code_draws(job.recipe.training.seed, "sampling", index, shape)  # (B, 1 + K)

    def predict_embed(network: nn.Module) -> Tensor:
        like = module.network.embed_codes.mean
        both = _like(text, like), _like(module.null_text, like)
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


def _draw(
    job: TrainJob,
    module: DenoisingModule,
    shape: tuple[int, ...],
    clip_range: float,
    denoise: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Sample with the recipe's number of steps; the same noise at every step of the training."""
    index, seed, device = torch.arange(shape[0]), job.recipe.training.seed, module.device

    def noise(step: int) -> Tensor:
        return seeding.normal(shape[1:], seed, "sampling", step, index, module.weights_dtype).to(device)

    config = SamplerConfig(
        num_steps=job.recipe.sampling.num_steps,
        variance="learned_range" if module.objective.learned_variance else "fixed_small",
        clip_sample_range=clip_range,
        prediction_type=module.objective.prediction_type,
    )
    return sample(denoise, noise(0), module.schedule.to(device), config, lambda step: noise(step + 1))


def _guided(
    predict: Callable[[Tensor, Tensor, bool], Tensor], scale: float, num_guided: int | None
) -> Callable[[Tensor, Tensor], Tensor]:
    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        conditional = predict(x_t, t, True)
        if scale == 1:
            return conditional
        return guide(conditional, predict(x_t, t, False), scale, num_guided)

    return denoise


def _repeated(text: Text, count: int) -> Text:
    return type(text)(*(part.expand(count, *part.shape[1:]) for part in text))


def _like(text: Text, x: Tensor) -> Text:
    return type(text)(*(part.to(x) if part.is_floating_point() else part.to(x.device) for part in text))
