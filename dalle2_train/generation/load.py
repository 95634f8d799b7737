"""Puts an unCLIP together: trained parts are known by their manifests' kinds, the CLIP by its fingerprint."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from dalle2_train import storage
from dalle2_train.checkpoints import ClipReference, ModelManifest, open_model
from dalle2_train.checkpoints.manifest import MANIFEST_NAME
from dalle2_train.checkpoints.model import resolve_model
from dalle2_train.config import build
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.diffusion.schedule import NoiseSchedule, ScheduleConfig, noise_schedule
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import load_clip
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.generation.config import PRIORS
from dalle2_train.networks.ar_prior import ArPrior, ArPriorConfig
from dalle2_train.networks.decoder import Decoder, DecoderConfig
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.networks.upsampler import Upsampler, UpsamplerConfig

PARTS = ("prior", "decoder", "upsampler")
UPSAMPLERS = ("upsampler", "second_upsampler")
"""The upsamplers' names, by size: in `GenerationConfig`, as stages and as folders of a release."""
RELEASE_MANIFEST = "unclip.json"
LAST = "last"
"""In an upsampler's folder, the model folder of the network of its last step, where that is another one."""

Network = TypeVar("Network", bound=nn.Module)
Found = tuple[ModelManifest, dict[str, Tensor]]


@dataclass(frozen=True)
class TrainedPart(Generic[Network]):
    """One trained model, ready to sample from."""

    manifest: ModelManifest
    network: Network
    """With EMA weights, in eval mode, without gradients."""


@dataclass(frozen=True)
class Part(TrainedPart[Network]):
    """One trained diffusion model."""

    schedule_config: ScheduleConfig
    schedule: NoiseSchedule
    objective: ObjectiveConfig
    last: Network | None = None
    """Of an upsampler, the network of its last step where that is another one, as in Karlo."""


@dataclass(frozen=True)
class ArPriorPart(TrainedPart[ArPrior]):
    """One trained autoregressive prior."""


@dataclass(frozen=True)
class Unclip:
    """All that turns text into pictures. Without upsamplers the pictures are the decoder's."""

    clip: ClipEncoder
    clip_uri: str
    prior: Part[Prior] | ArPriorPart | None
    """None: the decoder reads the caption's own embedding, or none (`DecoderStageConfig.image_embed`)."""
    decoder: Part[Decoder]
    upsamplers: tuple[Part[Upsampler], ...]
    """In order of size, each taking up what the one before made; two at most."""

    @property
    def parts(self) -> dict[str, TrainedPart]:
        """Stage → the part, of those that are there, in the order in which they run; the prior's stage is its kind."""
        parts: dict[str, TrainedPart] = {"decoder": self.decoder}
        if self.prior is not None:
            parts = {self.prior.manifest.kind: self.prior, **parts}
        return parts | dict(zip(UPSAMPLERS, self.upsamplers, strict=False))

    @property
    def image_size(self) -> int:
        """Pixels a side of the pictures it makes."""
        if self.upsamplers:
            return self.upsamplers[-1].network.config.high_size
        return self.decoder.network.config.image_size


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
            upsamplers.append(_upsampler(uri, manifest, state))
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
        decoder=_part(*found["decoder"], DecoderConfig, Decoder),
        upsamplers=_by_size(upsamplers),
    )
    _check_fit(unclip)
    return unclip


def load_prior(uri: str, *, clip: str | None = None) -> tuple[Part[Prior], ClipEncoder]:
    """The prior of the run, checkpoint or model folder `uri`, with its CLIP. Errors: as `load_unclip`."""
    manifest, state = open_model(uri)
    if manifest.kind != "prior":
        raise InputError(f"{uri} is a model of kind {manifest.kind!r}; give a diffusion prior")
    return _part(manifest, state, PriorConfig, Prior), open_clip(clip, {"prior": manifest})[0]


def load_upsampler(uri: str) -> Part[Upsampler]:
    """An upsampler alone: a run, checkpoint or model folder. InputError for another kind of model."""
    manifest, state = open_model(uri)
    if manifest.kind != "upsampler":
        raise InputError(f"{uri} is a model of kind {manifest.kind!r}; give an upsampler")
    return _upsampler(uri, manifest, state)


def is_clip_folder(uri: str) -> bool:
    """Is `uri` a CLIP's Hugging Face folder, or a run that made one? Other models have no config.json."""
    return any(
        storage.exists(storage.join(folder, "config.json")) for folder in (uri, storage.join(uri, "model"))
    )


def is_release(uri: str) -> bool:
    """Is `uri` a release folder, with all parts of a model?"""
    return storage.exists(storage.join(uri, RELEASE_MANIFEST))


def unpack_releases(models: Sequence[str]) -> list[str]:
    """`models` with a release folder replaced by the folders in it. Missing folder: InputError."""
    if not models:
        raise InputError(
            "no model was given; give the prior, the decoder and the upsampler, or a release folder"
        )
    uris: list[str] = []
    for uri in models:
        if not storage.exists(uri):
            raise InputError(
                f"{uri}: there is no such model folder; check the path, or train the model first"
            )
        if storage.exists(storage.join(uri, "model_index.json")):
            raise InputError(
                f"{uri} is a diffusers folder; make it ours with `dalle2-train import {uri} --to FOLDER`, and give that"
            )
        uris += _release_folders(uri) if is_release(uri) else [uri]
    return uris


def _release_folders(uri: str) -> list[str]:
    """The folders in the release at `uri`, after every file's digest was compared with its manifest."""
    described = storage.read_json(storage.join(uri, RELEASE_MANIFEST))
    try:
        for name, file in described["files"].items():
            if storage.sha256_file(storage.join(uri, name)) != file["sha256"]:
                raise RefusedError(
                    f"{uri}: {name} is not the file that was released; restore it, or remove the folder and "
                    "export again"
                )
        return [storage.join(uri, name) for name in described["models"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{uri}: {RELEASE_MANIFEST} lacks {error}; restore it or export again") from error


def only_one(kind: str, first: str | None, second: str) -> str:
    """`second`. InputError where `first` is another model of the same kind."""
    if first is not None and storage.absolute(first) != storage.absolute(second):
        raise InputError(f"two models of kind {kind!r} were given, {first} and {second}; leave one out")
    return second


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


def open_clip(source: str | None, manifests: Mapping[str, ModelManifest]) -> tuple[ClipEncoder, str]:
    """The CLIP that all parts were trained with, and where it was found.

    Some may name its text half alone, as those do that come from a diffusers text-to-image folder.
    """
    wanted = {kind: manifest.clip for kind, manifest in manifests.items() if manifest.clip is not None}
    fingerprints = {clip.fingerprint: kind for kind, clip in reversed(wanted.items())}
    if source is None and not wanted:
        raise InputError("no part's manifest names its CLIP; give the CLIP's folder too")
    sources = [source] if source is not None else _places(wanted.values())
    if len(fingerprints) <= 1:
        return load_clip(sources[0], next(iter(fingerprints), None)), sources[0]
    for uri in sources:
        encoder = load_clip(uri)
        if all(map(encoder.answers_to, fingerprints)):
            return encoder, uri
    (one, first), (other, second), *_ = reversed(fingerprints.items())
    raise InputError(
        f"the {second} was trained with the CLIP {other}, the {first} with {one}; give parts that were trained with "
        "one CLIP"
    )


def _places(clips: Iterable[ClipReference]) -> list[str]:
    """Where the manifests say that their CLIPs are, each once."""
    found = list({clip.fingerprint: clip.uri for clip in clips}.values())
    for uri in found:
        # A part that moved to another machine still names the CLIP's old place.
        if uri.startswith("/") and not storage.exists(uri):
            raise InputError(f"the CLIP that the models name, {uri}, is not there; give its folder too")
    return found


def _prior(
    found: Mapping[str, tuple[ModelManifest, dict[str, Tensor]]],
) -> Part[Prior] | ArPriorPart | None:
    if "prior" in found:
        return _part(*found["prior"], PriorConfig, Prior)
    if "ar_prior" not in found:
        return None
    manifest, state = found["ar_prior"]
    return ArPriorPart(manifest, open_network(manifest, state, ArPriorConfig, ArPrior))


def _part(
    manifest: ModelManifest, state: dict[str, Tensor], config_type: type, network_type: type[Network]
) -> Part[Network]:
    where = f"{manifest.kind} manifest"
    schedule_config = build(ScheduleConfig, _section(manifest, "schedule"), f"{where}.schedule")
    return Part(
        manifest=manifest,
        network=open_network(manifest, state, config_type, network_type),
        schedule_config=schedule_config,
        schedule=noise_schedule(schedule_config),
        objective=build(ObjectiveConfig, _section(manifest, "objective"), f"{where}.objective"),
    )


def open_network(
    manifest: ModelManifest, state: dict[str, Tensor], config_type: type, network_type: type[Network]
) -> Network:
    """The network that a manifest describes, with these weights. InputError where they do not fit."""
    where = f"{manifest.kind} manifest"
    network = network_type(build(config_type, _section(manifest, "network"), f"{where}.network"))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"{where}: its weights do not fit its config ({reason}); restore the folder"
        ) from error
    return network.eval().requires_grad_(False)


def _section(manifest: ModelManifest, name: str) -> Any:
    if name not in manifest.config:
        raise InputError(
            f"{manifest.kind} manifest: config has no section {name!r}; it was written by another program"
        )
    return manifest.config[name]


def _upsampler(uri: str, manifest: ModelManifest, state: dict[str, Tensor]) -> Part[Upsampler]:
    """With the network of its last step, where it has one of its own."""
    part = _part(manifest, state, UpsamplerConfig, Upsampler)
    if f"{LAST}/{MANIFEST_NAME}" not in manifest.files:
        return part
    last = _part(*open_model(storage.join(resolve_model(uri), LAST)), UpsamplerConfig, Upsampler)
    return replace(part, last=last.network)


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
