"""The one CLIP that all parts of a model were trained with."""

from collections.abc import Iterable, Mapping

from dalle2_train import storage
from dalle2_train.checkpoints import ClipReference, ModelManifest
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import load_clip
from dalle2_train.errors import InputError


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
