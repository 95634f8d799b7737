"""What kind of model a folder holds, and the folders in a release."""

from collections.abc import Sequence

from dalle2_train import storage
from dalle2_train.errors import InputError, RefusedError

RELEASE_MANIFEST = "unclip.json"


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


def release_files(uri: str) -> dict[str, str]:
    """name → SHA-256 of every file in the release at `uri`, as its unclip.json says. InputError where it does not."""
    described = storage.read_json(storage.join(uri, RELEASE_MANIFEST))
    try:
        digests = {str(name): str(file["sha256"]) for name, file in described["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_release(uri, error) from error
    if not digests:
        raise _no_release(uri, KeyError("files"))
    return digests


def verify_release(uri: str) -> dict[str, str]:
    """`release_files`, after each file was compared with its digest. RefusedError where one is another."""
    digests = release_files(uri)
    for name, expected in digests.items():
        if storage.sha256_file(storage.join(uri, name)) != expected:
            raise RefusedError(
                f"{uri}: {name} is not the file that was released; restore it, or remove the folder and export again"
            )
    return digests


def _release_folders(uri: str) -> list[str]:
    """The folders in the release at `uri`, verified."""
    verify_release(uri)
    described = storage.read_json(storage.join(uri, RELEASE_MANIFEST))
    try:
        return [storage.join(uri, name) for name in described["models"]]
    except (KeyError, TypeError) as error:
        raise _no_release(uri, error) from error


def _no_release(uri: str, error: Exception) -> InputError:
    return InputError(f"{uri}: {RELEASE_MANIFEST} is not a release's ({error}); restore it or export again")


def only_one(kind: str, first: str | None, second: str) -> str:
    """`second`. InputError where `first` is another model of the same kind."""
    if first is not None and storage.absolute(first) != storage.absolute(second):
        raise InputError(f"two models of kind {kind!r} were given, {first} and {second}; leave one out")
    return second
