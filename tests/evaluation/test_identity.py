import hashlib
import json
from dataclasses import replace

import pytest

from dalle2_train import storage
from dalle2_train.checkpoints import FileEntry, ModelManifest, weights_digest
from dalle2_train.checkpoints.manifest import EpsStatistics, publish_manifest, read_manifest
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


@pytest.mark.parametrize(
    "change",
    [
        {"eps_statistics": EpsStatistics((0, 9), (0.5, 1.0), 1.0, 2)},
        {"eps_statistics": EpsStatistics((0, 9), (0.5, 0.9), 1.0, 2)},
        {"image_embed_norm": 7.5},
    ],
)
def test_what_sampling_reads_of_a_manifest_is_part_of_the_model(change, tmp_path) -> None:
    folder = make_model(str(tmp_path / "a"), b"one")
    before = read_manifest(folder)
    statistics = EpsStatistics((0, 9), (0.5, 0.8), 1.0, 2)
    publish_manifest(folder, replace(before, eps_statistics=statistics, image_embed_norm=7.0))
    digest, weights = verified_digest(folder), weights_digest(read_manifest(folder))
    publish_manifest(folder, replace(read_manifest(folder), **change))
    assert verified_digest(folder) != digest
    assert weights_digest(read_manifest(folder)) == weights == weights_digest(before)


def test_a_model_of_format_1_keeps_its_digest_until_it_is_calibrated(tmp_path) -> None:
    """What reports and registries hold of models from before: of kind, config and files alone."""
    folder = make_model(str(tmp_path / "a"), b"one")
    manifest = replace(read_manifest(folder), image_embed_norm=7.0, format_version=1)
    publish_manifest(folder, manifest)
    files = {"model.safetensors": hashlib.sha256(b"one").hexdigest()}
    known = json.dumps({"kind": "decoder", "config": {"a": 1}, "files": files}, sort_keys=True)
    assert verified_digest(folder) == hashlib.sha256(known.encode()).hexdigest()
    publish_manifest(folder, replace(manifest, eps_statistics=EpsStatistics((0, 9), (0.5, 1.0), 1.0, 2)))
    assert verified_digest(folder) != hashlib.sha256(known.encode()).hexdigest()


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
