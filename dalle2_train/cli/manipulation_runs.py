"""What the commands for manipulations do: open the model and the pictures, draw, write the grid."""

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dalle2_train.cli.manners import Outcome, extent, resolve_models, sections, would
from dalle2_train.cli.sampler import chosen_defaults, in_words, tell, told
from dalle2_train.errors import InputError

if TYPE_CHECKING:
    from dalle2_train.generation.config import GenerationConfig
    from dalle2_train.generation.manipulations.components import Components
    from dalle2_train.generation.manipulations.latents import InversionConfig
    from dalle2_train.generation.manipulations.sheet import Sheet
    from dalle2_train.generation.text_to_image import Progress
    from dalle2_train.generation.unclip import Unclip


def vary(args: argparse.Namespace) -> Outcome:
    """A picture's variations."""
    from dalle2_train.generation.manipulations.pictures import open_picture
    from dalle2_train.generation.manipulations.variations import check_variations
    from dalle2_train.generation.manipulations.variations import vary as draw_variations

    unclip, config, _ = opened = _open_inverting(args)
    check_variations(unclip, config, args.eta, args.samples)
    picture = open_picture(args.picture, unclip)
    about = {"picture": args.picture, "eta": args.eta, "samples": args.samples}
    return _finish(args, opened, about, lambda progress: draw_variations(
        unclip, picture, args.eta, args.samples, config, _inversion(args), seed=args.seed, progress=progress
    ))  # fmt: skip


def interpolate(args: argparse.Namespace) -> Outcome:
    """The pictures between two."""
    from dalle2_train.generation.manipulations.interpolation import interpolate as draw_between
    from dalle2_train.generation.manipulations.pictures import open_picture

    unclip, config, _ = opened = _open_inverting(args)
    if args.fixed_noise and args.refinements is not None:
        raise InputError("--refinements is of an inversion, and --fixed-noise does without; leave one out")
    first, last = (open_picture(uri, unclip) for uri in (args.first, args.last))
    inversion = None if args.fixed_noise else _inversion(args)
    about = {"pictures": [args.first, args.last], "steps": args.steps, "fixed_noise": args.fixed_noise}
    return _finish(args, opened, about, lambda progress: draw_between(
        unclip, first, last, args.steps, config, inversion, seed=args.seed, progress=progress
    ))  # fmt: skip


def textdiff(args: argparse.Namespace) -> Outcome:
    """A picture turned by the difference of two texts."""
    from dalle2_train.generation.manipulations.pictures import open_picture
    from dalle2_train.generation.manipulations.text_diff import text_direction
    from dalle2_train.generation.manipulations.text_diff import textdiff as draw_turned

    unclip, config, _ = opened = _open_inverting(args)
    picture = open_picture(args.picture, unclip)
    direction = text_direction(unclip.clip, args.before, args.after)
    about = {"picture": args.picture, "from": args.before, "into": args.after, "theta": args.theta}
    return _finish(args, opened, about, lambda progress: draw_turned(
        unclip, picture, direction, args.theta, config, _inversion(args), seed=args.seed, progress=progress
    ))  # fmt: skip


def inpaint(args: argparse.Namespace) -> Outcome:
    """A part of a picture drawn anew."""
    from dalle2_train.diffusion.samplers import Resampling
    from dalle2_train.generation.manipulations.inpainting import paint
    from dalle2_train.generation.manipulations.masks import open_canvas
    from dalle2_train.generation.pipeline import check_sampling

    unclip, config, _ = opened = _open(args, {}, {})
    check_sampling(unclip, config)
    canvas = open_canvas(args.picture, args.mask, unclip)
    about = {"picture": args.picture, "mask": args.mask, "prompt": args.prompt, "samples": args.samples}
    return _finish(args, opened, about, lambda progress: paint(
        unclip, canvas, args.prompt, args.samples, config, Resampling(args.resample),
        seed=args.seed, progress=progress,
    ))  # fmt: skip


def probe(args: argparse.Namespace) -> Outcome:
    """A picture from the first components of its embedding."""
    from dalle2_train.generation.manipulations.components import check_counts, growing
    from dalle2_train.generation.manipulations.components import probe as draw_rebuilt
    from dalle2_train.generation.manipulations.pictures import open_picture

    unclip, config, _ = opened = _open_inverting(args)
    picture, embed_dim = open_picture(args.picture, unclip), unclip.clip.embed_dim
    counts = args.components or growing(embed_dim, 6)
    check_counts(counts, embed_dim)
    components = _components(args, unclip)
    about = {"picture": args.picture, "source": args.embeddings or args.data, "samples": args.samples}
    return _finish(args, opened, about, lambda progress: draw_rebuilt(
        unclip, picture, components(), counts, args.samples, config, seed=args.seed, progress=progress
    ))  # fmt: skip


def _components(args: argparse.Namespace, unclip: "Unclip") -> Callable[[], "Components"]:
    """Of an embedded set they are read now, of shards when they are wanted: that takes a while."""
    from dalle2_train.workflow.manipulations import components_of_embeddings, components_of_shards

    if args.embeddings is not None:
        found = components_of_embeddings(args.embeddings, unclip.clip)
        return lambda: found
    extent(args.data)
    return lambda: components_of_shards(args.data, unclip.clip)


class _Opened(NamedTuple):
    """What is drawn with."""

    unclip: "Unclip"
    config: "GenerationConfig"
    source: str
    """Where the sampler is from."""


def _open_inverting(args: argparse.Namespace) -> _Opened:
    """`_open` for a manipulation that draws from a given x_T."""
    from dalle2_train.generation.manipulations.drawing import DEFAULTS, check_config
    from dalle2_train.generation.settings import OF_PICTURES

    opened = _open(args, DEFAULTS, OF_PICTURES)
    check_config(opened.unclip, opened.config)
    return opened


def _open(
    args: argparse.Namespace, of_its_own: Mapping[str, Mapping[str, Any]], idle: Mapping[str, str]
) -> _Opened:
    """The model, and how it is sampled, which is told; the grid could be written.

    of_its_own: sections of the generation that the manipulation has defaults of its own for. idle: as in `settled`.
    """
    from dalle2_train import storage
    from dalle2_train.config import check_keys
    from dalle2_train.generation.config import GenerationConfig
    from dalle2_train.generation.load import load_unclip
    from dalle2_train.generation.presets import of_profile
    from dalle2_train.generation.settings import refuse_idle, settled

    if not args.to.lower().endswith(".png"):
        raise InputError(f"--to {args.to}: the grid is a PNG; give a name that ends in .png")
    settings = sections(args.set, generation={})["generation"]
    models = resolve_models(args.models, args.tracking)
    defaults = chosen_defaults(args.preset, models)
    # To be told now, not when the models are loaded.
    check_keys(GenerationConfig, settings, "generation")
    refuse_idle(settings, idle)
    unclip = load_unclip(models, parts=("decoder", "upsampler"))
    chosen = (defaults or of_profile(unclip.decoder.manifest.profile)).but(of_its_own)
    config = settled(unclip, settings, chosen, idle)
    storage.check_could_write(storage.parent(args.to))
    tell(chosen.source, settings)
    return _Opened(unclip, config, chosen.source)


def _inversion(args: argparse.Namespace) -> "InversionConfig":
    from dalle2_train.generation.manipulations.latents import InversionConfig

    return InversionConfig() if args.refinements is None else InversionConfig(args.refinements)


def _finish(
    args: argparse.Namespace, opened: _Opened, about: dict[str, Any], work: Callable[["Progress"], "Sheet"]
) -> Outcome:
    """Does the work, unless it is a dry run, and tells where the grid is."""
    from dalle2_train.config import to_dict
    from dalle2_train.workflow.manipulations import write_sheet
    from dalle2_train.workflow.progress import on_a_line

    name, generation = args.run.__name__, to_dict(opened.config)
    about |= told(opened.source, generation)
    if args.dry_run:
        return would({"to": args.to, **about}, f"{name} into {args.to}", in_words(generation))
    with on_a_line(name) as line:
        sheet = work(line.tell)
    write_sheet(sheet, args.to)
    measured = ", ".join(
        f"{key} {value:.3g}" for key, value in sheet.facts.items() if isinstance(value, float)
    )
    rows = f" in {len(sheet.rows)} rows" if len(sheet.rows) > 1 else ""
    text = f"{args.to}: {len(sheet.rows) * len(sheet.columns)} pictures{rows}"
    return Outcome(
        {"to": args.to, "seed": args.seed, **about, **sheet.facts}, f"{text}; {measured}".rstrip("; ")
    )
