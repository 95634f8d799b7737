"""A training in this process: checked before it starts, and without Ray."""

import json
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from PIL import Image
from tiny_clip import save_tiny_clip
from tiny_recipes import DIRECT
from toy_training import losses

from dalle2_train import storage
from dalle2_train.checkpoints import open_model
from dalle2_train.checkpoints.manifest import ModelManifest
from dalle2_train.checkpoints.runs import RunStatus, list_runs
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.launch import check, train, worker
from dalle2_train.recipe import build_recipe
from dalle2_train.training.goodput import read_attempts


def test_a_recipe_becomes_a_model_with_pictures(make_job):
    job = make_job("run", "training.num_steps=4", "training.sample_every_steps=4")
    result = train(job)
    assert result.step == 4 and len(losses(job.run_uri)) == 4
    manifest, weights = open_model(job.run_uri)
    assert isinstance(manifest, ModelManifest) and manifest.kind == "upsampler"
    assert build_recipe(manifest.recipe) == job.recipe
    assert manifest.data is not None and manifest.data.uri == job.data
    assert set(weights) and manifest.config["network"]["high_size"] == 16
    with Image.open(f"{job.run_uri}/samples/step-00000004.png") as picture:
        assert picture.width > 2 * 16 and picture.height > 3 * 16


def test_a_mixture_trains_like_a_set(make_job, shards, tmp_path):
    mixture = tmp_path / "mixture.yaml"
    text = "sources: [{{name: a, uri: {0}, weight: 1}}, {{name: b, uri: {0}, weight: {1}}}]"
    mixture.write_text(text.format(shards, 2))
    settings = ("training.sample_every_steps=2", "optimizer.schedule=constant")
    job = replace(make_job("whole", "training.num_steps=4", *settings), data=str(mixture))
    assert train(job).step == 4
    half = replace(make_job("half", "training.num_steps=2", *settings), data=str(mixture))
    train(half)
    assert train(replace(half, recipe=job.recipe)).resumed_from == 2
    assert losses(half.run_uri) == losses(job.run_uri)
    mixture.write_text(text.format(shards, 3))
    with pytest.raises(InputError, match="the shards"):
        train(job)


def test_a_finished_run_that_could_not_say_so_says_so_when_the_command_is_given_again(make_job):
    job = make_job("run", "training.num_steps=2", "training.sample_every_steps=0")
    train(job)
    uri = f"{job.run_uri}/progress.json"
    told = storage.read_json(uri)
    storage.publish_json(uri, told | {"status": "running", "step": 1})
    assert train(job).loss == told["loss"]
    found = storage.read_json(uri)
    assert (found["status"], found["step"]) == ("finished", 2)


def test_a_run_is_seen_while_it_starts(make_job, monkeypatch):
    """As where Ray waits for machines."""
    job = make_job(
        "run", "training.num_steps=4", "training.sample_every_steps=0", "training.checkpoint_every_steps=2"
    )

    def seen() -> RunStatus:
        return list_runs(job.storage, job.name)[0]

    def wait_in_vain(*_: object) -> None:
        told.append(seen())
        raise RefusedError("no machine came")

    told: list[RunStatus] = []
    with monkeypatch.context() as patched:
        patched.setattr(worker, "run", wait_in_vain)
        with pytest.raises(RefusedError, match="no machine came"):
            train(job)
        assert (told[0].status, told[0].step, told[0].is_trained) == ("starting", 0, True)
        assert (seen().status, seen().is_trained) == ("failed", False)
    begun: list[float] = []
    real = worker.run
    monkeypatch.setattr(worker, "run", lambda *given: (begun.append(time.time()), real(*given))[1])
    assert train(job).step == 4 and seen().status == "finished"
    # Its wall time runs since it was asked for.
    assert read_attempts(job.run_uri)[0].began < begun[0]


@pytest.mark.system
def test_loader_workers_change_no_loss_and_end_with_the_training(make_job):
    settings = ("training.num_steps=4", "training.sample_every_steps=0", "data.cache_megabytes=0")
    alone = make_job("alone", *settings, "data.prefetch_batches=0")
    train(alone)
    helped = make_job("helped", *settings, "data.num_workers=2")
    train(helped)
    assert losses(helped.run_uri) == losses(alone.run_uri)
    assert not [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_the_same_command_again_goes_on_with_more_steps(make_job):
    # A constant rate does not depend on where the run will end.
    settings = ("training.sample_every_steps=0", "optimizer.schedule=constant")
    whole = make_job("whole", "training.num_steps=4", *settings)
    train(whole)
    half = make_job("half", "training.num_steps=2", *settings)
    train(half)
    again = train(replace(half, recipe=whole.recipe))
    assert again.resumed_from == 2 and again.step == 4
    assert losses(half.run_uri) == losses(whole.run_uri)


def test_a_finished_run_is_not_another_ones_answer(make_job, shards, tmp_path):
    settings = ("training.num_steps=1", "training.sample_every_steps=0")
    job = make_job("run", *settings)
    train(job)
    assert train(make_job("run", *settings, "training.log_every_steps=1")).resumed_from == 1
    with pytest.raises(InputError, match=r"optimizer.learning_rate 0.002, not 0.003; give another --name"):
        train(make_job("run", *settings, "optimizer.learning_rate=0.003"))
    other = shutil.copytree(shards, tmp_path / "other")
    (other / "manifest.json").unlink()
    (other / "00000.tar").write_bytes((other / "00000.tar").read_bytes() + bytes(512))
    with pytest.raises(InputError, match="the shards"):
        train(replace(job, data=str(other)))


def test_weights_may_come_from_another_run(make_job):
    first = make_job("first", "training.num_steps=2", "training.sample_every_steps=0")
    train(first)
    second = make_job("second", "training.num_steps=1", "training.sample_every_steps=0",
                      "optimizer.learning_rate=0.0", init_from=first.run_uri)  # fmt: skip
    train(second)
    ours, theirs = open_model(second.run_uri)[1], open_model(first.run_uri)[1]
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    # The same command goes on; other weights to begin with are not ignored, be the run finished or not.
    assert train(second).resumed_from == 1
    third = make_job("third", "training.num_steps=1", "training.sample_every_steps=0")
    train(third)
    other = replace(second, init_from=third.run_uri)
    with pytest.raises(InputError, match="other weights to begin with"):
        train(other)
    longer = replace(second.recipe, training=replace(second.recipe.training, num_steps=3))
    with pytest.raises(InputError, match="other weights to begin with"):
        train(replace(other, recipe=longer))


def test_an_unfinished_run_goes_on_with_what_it_began_with(make_job):
    settings = ("training.num_steps=4", "training.sample_every_steps=0", "training.checkpoint_every_steps=2")
    job = make_job("run", *settings)
    train(job)
    shutil.rmtree(f"{job.run_uri}/model")
    shutil.rmtree(f"{job.run_uri}/checkpoints/step-00000004")
    other = make_job("run", *settings, "optimizer.learning_rate=0.003")
    for start in (check, train):
        with pytest.raises(
            InputError, match=r"at step 2 has learned with optimizer.learning_rate 0.002, not 0.003"
        ):
            start(other, 0)
    assert train(job).resumed_from == 2


def test_a_run_that_an_older_version_began_goes_on(make_job):
    """It knew neither of two settings, nor how a third is spelt today."""
    settings = ("training.sample_every_steps=0", "optimizer.schedule=constant")
    whole = make_job("whole", "training.num_steps=4", *settings)
    train(whole)
    job = make_job("run", "training.num_steps=2", *settings)
    train(job)
    longer = replace(job, recipe=whole.recipe)
    for manifest in Path(job.run_uri).rglob("manifest.json"):
        found = json.loads(manifest.read_text()) | {"format_version": 2}
        del found["sha256"], found["loss"]
        del found["recipe"]["optimizer"]["sam_rho"]
        for model in (found["config"], found["recipe"]["model"]):
            del model["objective"]["variance_range_weight"]
            blur = model.pop("degradation")
            model |= {"blur_sigma": blur["sigma"], "blur_probability": blur["probability"]}
        manifest.write_text(json.dumps(found))
    other = replace(longer.recipe, optimizer=replace(longer.recipe.optimizer, sam_rho=0.1))
    with pytest.raises(InputError, match=r"optimizer\.sam_rho 0\.0, not 0\.1"):
        train(replace(longer, recipe=other))
    assert train(job).resumed_from == 2
    assert train(longer).resumed_from == 2
    assert losses(job.run_uri) == losses(whole.run_uri)


def test_fewer_steps_than_are_done_are_refused(make_job):
    settings = (
        "training.sample_every_steps=0",
        "training.checkpoint_every_steps=2",
        "optimizer.schedule=constant",
    )
    job = make_job("run", "training.num_steps=3", *settings)
    train(job)
    shutil.rmtree(f"{job.run_uri}/model")
    with pytest.raises(InputError, match=r"has done 3 steps, but training.num_steps is 1"):
        train(make_job("run", "training.num_steps=1", *settings))


def test_a_check_leaves_nothing_behind(make_job, tmp_path):
    check(make_job("run", storage=str(tmp_path / "not" / "yet")), 0)
    assert not (tmp_path / "not").exists()


def test_without_workers_ray_is_never_imported(make_job):
    job = make_job("run", "training.num_steps=1", "training.sample_every_steps=0")
    program = (
        "import sys, pickle; from dalle2_train.launch import train; "
        "train(pickle.load(sys.stdin.buffer)); "
        "assert not {'ray', 'mlflow', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], input=pickle.dumps(job), check=True)


@pytest.mark.parametrize(
    ("workers", "change", "message"),
    [
        (0, {"name": "a/b"}, "--name"),
        (3, {}, "does not divide data.num_lanes 8"),
        (0, {"data": "nowhere"}, "nowhere"),
        (2, {"storage": "memory://runs"}, "memory:"),
        (0, {"settings": ["data.split=absent"]}, "'absent'"),
        (2, {"settings": ["parallel.shard=3"]}, "parallel.shard is 3"),
        (0, {"family": "prior"}, "no embeddings"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(make_job, tmp_path, workers, change, message):
    change = {"name": "run", "settings": []} | change
    if change.get("data"):
        change["data"] = str(tmp_path / change["data"])
    job = make_job(change.pop("name"), *change.pop("settings"), **change)
    for start in (check, train):
        with pytest.raises(InputError, match=message):
            start(job, workers)
    assert not storage.exists(storage.join(str(tmp_path), "run"))


def test_storage_that_cannot_be_written_is_named(make_job, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        train(make_job("run", storage=str(tmp_path / "file")))


def test_a_model_of_another_size_cannot_be_begun_with(make_job):
    first = make_job("first", "training.num_steps=1", "training.sample_every_steps=0")
    train(first)
    other = make_job("other", "model.network.channels=[32, 64]", init_from=first.run_uri)
    with pytest.raises(InputError, match="--init-from"):
        train(other)


def test_a_direct_baseline_reads_captions_by_the_clips_tokens(make_job, tmp_path):
    clip = save_tiny_clip(tmp_path / "clip")
    settings = (*DIRECT, "training.num_steps=2", "training.sample_every_steps=2", "sampling.num_samples=2")
    job = make_job("run", *settings, family="direct", clip=clip)
    assert train(job).step == 2
    manifest, _ = open_model(job.run_uri)
    assert manifest.clip is not None and manifest.clip.uri == clip and manifest.image_embed_norm is None
    with Image.open(f"{job.run_uri}/samples/step-00000002.png") as picture:
        assert picture.width > 2 * 16 and picture.height > 2 * 16
    for change, message in (
        ({"clip": None}, "none was named; give its folder as --clip"),
        ({"settings": ["model.network.text_encoder.context_length=9"]}, "context_length is 9.*gives 8"),
        ({"settings": ["model.network.text_encoder.vocab_size=30"]}, "vocab_size is 30.*tokenizer has"),
        ({"settings": ["sampling.guidance_scale=2"]}, "guidance_scale: a direct model draws in one forward"),
    ):
        told = settings + tuple(change.get("settings", ()))
        other = make_job("other", *told, family="direct", clip=change.get("clip", clip))
        with pytest.raises(InputError, match=message):
            train(other)
