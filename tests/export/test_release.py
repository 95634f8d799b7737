"""The release folder: whole, self-describing, verified when opened."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dalle2_train.checkpoints import open_model
from dalle2_train.encoders.loading import load_clip
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.export import Release, export_release
from dalle2_train.generation.config import (
    DecoderStageConfig,
    GenerationConfig,
    PriorStageConfig,
    UpsamplerStageConfig,
)
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.pipeline import generate

FAST = GenerationConfig(
    prior=PriorStageConfig(num_steps=3),
    decoder=DecoderStageConfig(num_steps=3),
    upsampler=UpsamplerStageConfig(num_steps=2),
)


@pytest.fixture(scope="module")
def release(models: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Release:
    return export_release(list(models.values()), str(tmp_path_factory.mktemp("out") / "release"))


def test_the_release_draws_the_models_pictures(models: Mapping[str, str], release: Release):
    ours, released = load_unclip(list(models.values())), load_unclip([release.path])
    prompts = ["a red heart", "the sea"]
    assert torch.equal(generate(ours, prompts, 0, FAST), generate(released, prompts, 0, FAST))


def test_every_part_is_a_model_of_its_own(models: Mapping[str, str], release: Release):
    for kind in ("prior", "decoder", "upsampler"):
        manifest, weights = open_model(f"{release.path}/{kind}")
        _, expected = open_model(models[kind])
        assert manifest.kind == kind
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert load_clip(f"{release.path}/clip").fingerprint == release.models["clip"]


def test_the_manifest_holds_the_digest_of_every_other_file(release: Release):
    text = Path(release.path, "unclip.json").read_bytes()
    described = json.loads(text)
    files = {
        path.relative_to(release.path).as_posix() for path in Path(release.path).rglob("*") if path.is_file()
    }
    assert files == {*described["files"], "unclip.json"}
    for name, file in described["files"].items():
        assert hashlib.sha256(Path(release.path, name).read_bytes()).hexdigest() == file["sha256"]
    assert hashlib.sha256(text).hexdigest() == release.digest
    assert described["manifests"].keys() == {"prior", "decoder", "upsampler"}


def test_equal_models_give_equal_bytes(models: Mapping[str, str], release: Release, tmp_path: Path):
    again = export_release(list(models.values())[::-1], str(tmp_path / "again"))
    assert (again.digest, again.num_bytes) == (release.digest, release.num_bytes)
    assert (
        export_release([again.path], str(tmp_path / "of the release")).models["clip"]
        == release.models["clip"]
    )


def test_a_release_of_two_upsamplers(models: Mapping[str, str], second: str, tmp_path: Path):
    given = [*models.values(), second]
    made = export_release(given, str(tmp_path / "release"))
    assert list(made.models) == ["clip", "prior", "decoder", "upsampler", "second_upsampler"]
    assert open_model(f"{made.path}/second_upsampler")[0].kind == "upsampler"
    released, ours = load_unclip([made.path]), load_unclip(given)
    assert torch.equal(generate(ours, ["the sea"], 0, FAST), generate(released, ["the sea"], 0, FAST))


def test_the_same_release_again_is_left_as_it_is(models: Mapping[str, str], release: Release):
    written = Path(release.path, "unclip.json").stat().st_mtime_ns
    assert export_release(list(models.values()), release.path) == release
    assert Path(release.path, "unclip.json").stat().st_mtime_ns == written


def test_to_an_object_store(models: Mapping[str, str], release: Release):
    remote = export_release(list(models.values()), "memory://released/unclip")
    assert remote.digest == release.digest
    assert load_unclip([remote.path]).clip.fingerprint == release.models["clip"]


def test_a_damaged_file_is_found(release: Release, tmp_path: Path):
    shutil.copytree(release.path, tmp_path / "damaged")
    tokenizer = tmp_path / "damaged" / "clip" / "merges.txt"
    tokenizer.write_bytes(tokenizer.read_bytes() + b"\n")
    with pytest.raises(RefusedError, match=r"clip/merges\.txt"):
        load_unclip([str(tmp_path / "damaged")])


def test_a_damaged_release_is_not_said_to_be_done(
    models: Mapping[str, str], release: Release, tmp_path: Path
):
    damaged = shutil.copytree(release.path, tmp_path / "damaged")
    (damaged / "decoder" / "model.safetensors").unlink()
    with pytest.raises(RefusedError, match=r"decoder/model\.safetensors.*export again"):
        export_release(list(models.values()), str(damaged))


def test_nothing_is_written_over_or_left_half_written(
    models: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="something is there already"):
        export_release(list(models.values()), str(tmp_path / "taken"))

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("dalle2_train.export.release.publish_release", full)
    with pytest.raises(OSError, match="no space"):
        export_release(list(models.values()), str(tmp_path / "release"))
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "mine.txt"]
