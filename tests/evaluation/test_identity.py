import pytest

from dalle2_train import storage
from dalle2_train.checkpoints import FileEntry, ModelManifest
from dalle2_train.checkpoints.manifest import publish_manifest
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.evaluation import verified_digest


def make_model(folder: str, weights: bytes) -> str:
    sha256 = storage.publish_bytes(storage.join(folder, "model.safetensors"), weights)
    files = {"model.safetensors": FileEntry(sha256, len(weights))}
    publish_manifest(folder, ModelManifest(kind="decoder", config={"a": 1}, files=files))
    return folder


def make_release(folder: str, weights: bytes) -> str:
    sha256 = storage.publish_bytes(storage.join(folder, "prior", "model.safetensors"), weights)
    storage.publish_json(
        storage.join(folder, "unclip.json"),
        {"parts": ["prior"], "files": {"prior/model.safetensors": {"sha256": sha256, "size": len(weights)}}},
    )
    return folder


@pytest.mark.parametrize("make", [make_model, make_release])
def test_a_digest_is_of_the_weights_wherever_they_lie(make, tmp_path) -> None:
    a, b, c = (
        make(str(tmp_path / name), data) for name, data in (("a", b"one"), ("b", b"one"), ("c", b"two"))
    )
    assert verified_digest(a) == verified_digest(b) != verified_digest(c)
    assert verified_digest([a, c]) == verified_digest([c, b]) != verified_digest([a])


@pytest.mark.parametrize("make", [make_model, make_release])
def test_damage_is_refused(make, tmp_path) -> None:
    folder = make(str(tmp_path / "a"), b"weights")
    file = next(tmp_path.rglob("model.safetensors"))
    file.write_bytes(b"Weights")
    with pytest.raises(RefusedError, match=r"model\.safetensors"):
        verified_digest(folder)


def test_nothing_there_is_the_users_error(tmp_path) -> None:
    with pytest.raises(InputError):
        verified_digest(str(tmp_path / "nothing"))
