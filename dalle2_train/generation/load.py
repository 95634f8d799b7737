"""Puts an unCLIP together: trained parts are known by their manifests' kinds, the CLIP by its fingerprint."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from dalle2_train.checkpoints import ModelManifest, open_model
from dalle2_train.errors import InputError
from dalle2_train.generation.clip import open_clip
from dalle2_train.generation.config import PRIORS
from dalle2_train.generation.folders import is_clip_folder, only_one, unpack_releases
from dalle2_train.generation.part import open_network, open_part, open_upsampler
from dalle2_train.generation.unclip import UPSAMPLERS, ArPriorPart, Part, Unclip
from dalle2_train.networks.ar_prior import ArPrior, ArPriorConfig
from dalle2_train.networks.decoder import Decoder, DecoderConfig
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.networks.upsampler import Upsampler

PARTS = ("prior", "decoder", "upsampler")

Found = tuple[ModelManifest, dict[str, Tensor]]


def load_unclip(models: Sequence[str], *, clip: str | None = None, parts: Sequence[str] = PARTS) -> Unclip:
    """An unCLIP of `models`: runs, checkpoints, model folders or one release folder, in any order. Of upsamplers there
    may be two, the one's pictures being the other's small ones.

    clip: a CLIP folder or hub name; by default one among `models`, or the one that the parts' manifests name.
    It must be the CLIP that the parts were trained with. parts: those that must be there, the decoder always;
    leave "upsampler" out for the decoder's small pictures, "prior" where the decoder reads no prior's embeddings.
    Errors: InputError for a folder that isn't there, a missing or doubled part, parts that do not fit one
    another, or another CLIP; RefusedError for damaged files.
    """
    found: dict[str, Found] = {}
    upsamplers: list[Part[Upsampler]] = []
    for uri in unpack_releases(models):
        if is_clip_folder(uri):
            clip = only_one("clip", clip, uri)
            continue
        manifest, state = open_model(uri)
        _check_kind(uri, manifest)
        if manifest.kind == "upsampler":
            upsamplers.append(open_upsampler(uri, manifest, state))
            continue
        if manifest.kind in found:
            raise InputError(
                f"two models of kind {manifest.kind!r} were given, {uri} is the second; leave one out"
            )
        found[manifest.kind] = (manifest, state)
    _check_parts([*found, *("upsampler" for _ in upsamplers)], parts)
    encoder, clip_uri = open_clip(clip, {kind: manifest for kind, (manifest, _) in found.items()})
    unclip = Unclip(
        clip=encoder,
        clip_uri=clip_uri,
        prior=_prior(found),
        decoder=open_part(*found["decoder"], DecoderConfig, Decoder),
        upsamplers=_by_size(upsamplers),
    )
    _check_fit(unclip)
    return unclip


def _check_kind(uri: str, manifest: ModelManifest) -> None:
    if manifest.kind == "clip":
        raise InputError(f"{uri} is a checkpoint inside a CLIP's training; give the finished run's folder")
    if manifest.kind not in {*PARTS, *PRIORS}:
        raise InputError(
            f"{uri} is a model of kind {manifest.kind!r}; an unCLIP is made of clip, {', '.join(PARTS)}, or "
            "ar_prior in place of prior"
        )


def _check_parts(found: Sequence[str], parts: Sequence[str]) -> None:
    if all(kind in found for kind in PRIORS):
        raise InputError(
            "a prior and an ar_prior were given; an unCLIP has one of the two, leave the other out"
        )
    needed = [kind for kind in PARTS if kind in {"decoder", *parts}]
    missing = [kind for kind in needed if kind not in found]
    if "ar_prior" in found and "prior" in missing:
        missing.remove("prior")
    if missing:
        have = ", ".join(found) or "none"
        kinds = " and ".join("'prior' or 'ar_prior'" if kind == "prior" else repr(kind) for kind in missing)
        raise InputError(
            f"no model of kind {kinds} was given (given: {have}); "
            f"train one with `dalle2-train train {missing[0]}/…` and add its folder"
        )


def _prior(
    found: Mapping[str, tuple[ModelManifest, dict[str, Tensor]]],
) -> Part[Prior] | ArPriorPart | None:
    if "prior" in found:
        return open_part(*found["prior"], PriorConfig, Prior)
    if "ar_prior" not in found:
        return None
    manifest, state = found["ar_prior"]
    return ArPriorPart(manifest, open_network(manifest, state, ArPriorConfig, ArPrior))


def _by_size(upsamplers: Sequence[Part[Upsampler]]) -> tuple[Part[Upsampler], ...]:
    """From the smallest picture to the largest. InputError where one does not take up what the one before makes."""
    if len(upsamplers) > len(UPSAMPLERS):
        raise InputError(
            f"{len(upsamplers)} upsamplers were given; {len(UPSAMPLERS)} are the most, leave the others out"
        )
    ordered = sorted(upsamplers, key=lambda part: part.network.config.low_size)
    for first, second in pairwise(part.network.config for part in ordered):
        if first.high_size != second.low_size:
            raise InputError(
                f"the upsamplers do not fit: one makes {first.low_size} → {first.high_size} pixels, the other "
                f"{second.low_size} → {second.high_size}; give one from {first.high_size} pixels, or leave one out"
            )
    return tuple(ordered)


def _check_fit(unclip: Unclip) -> None:
    """Sizes that must agree between the parts."""
    decoder = unclip.decoder.network.config
    sizes = [("CLIP's embedding", unclip.clip.embed_dim, "the decoder's", decoder.embed_dim)]
    if unclip.prior is not None:
        prior, context_length = unclip.prior.network.config, unclip.clip.context_length
        sizes.append(("CLIP's embedding", unclip.clip.embed_dim, "the prior's", prior.embed_dim))
        if prior.text_encoder is None:
            sizes.append(("CLIP's context length", context_length, "the prior's", prior.num_text_tokens))
    if unclip.upsamplers:
        low_size = unclip.upsamplers[0].network.config.low_size
        sizes.append(("the decoder's picture size", decoder.image_size, "the upsampler's low_size", low_size))
    for ours, value, theirs, other in sizes:
        if value != other:
            raise InputError(
                f"{ours} is {value} but {theirs} is {other}; give parts that were trained for each other"
            )
