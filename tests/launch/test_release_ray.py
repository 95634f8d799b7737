"""The autoregressive prior and the direct baseline, from two Ray workers of which one is killed to an alias."""

import json
from pathlib import Path

import pytest
from PIL import Image
from processes import run_ranks_with
from ray_workers import kill_a_worker
from tiny_clip import save_tiny_clip
from tiny_recipes import AR_PRIOR, DECODER, DIRECT, SILENT
from toy_training import losses

from dalle2_train.checkpoints.manifest import read_manifest
from dalle2_train.cli import main
from dalle2_train.launch import TrainJob, train
from dalle2_train.launch.embed import embed

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.filterwarnings("default"),
              pytest.mark.usefixtures("cluster")]  # fmt: skip

STEPS = ("training.num_steps=40", "training.checkpoint_every_steps=10", SILENT)
ASKED = ("evaluation.num_queries=2", "evaluation.gallery_size=8")
FEW_STEPS = ("generation.decoder.num_steps=2", "generation.upsampler.num_steps=1")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def embeddings(shards, clip, tmp_path_factory) -> str:
    to = str(tmp_path_factory.mktemp("embeddings") / "set")
    embed(shards, to, clip, dtype="fp32", text_encodings=True)
    return to


@pytest.fixture
def run(capsys):
    """Runs a command line; returns its JSON, of which Ray's own lines are no part."""

    def command(*words: str, settings: tuple[str, ...] = ()) -> dict:
        changes = [word for change in settings for word in ("--set", change)]
        code, said = main([*words, *changes, "--json"]), capsys.readouterr()
        assert code == 0, said.err
        return json.loads(next(line for line in reversed(said.out.splitlines()) if line.startswith("{")))

    return command


def train_on_two(job: TrainJob, plain: TrainJob) -> int:
    """On Ray with a worker killed, and `plain`, the same, in two processes undisturbed; where Ray's went on."""
    killed = kill_a_worker(Path(job.run_uri), 25)
    result = train(job, workers=2)
    assert killed and result.step == 40
    assert read_manifest(f"{job.run_uri}/checkpoints/step-00000040").world_size == 2
    assert [code for code, _ in run_ranks_with(plain, 2)] == [0, 0]
    assert losses(job.run_uri) == losses(plain.run_uri)
    return result.resumed_from


def to_an_alias(run, release: str, shards: str, name: str, *settings: str) -> None:
    """The release is evaluated, promoted and drawn from by its alias."""
    report = run("evaluate", release, "--data", shards, settings=(*ASKED, *settings))
    assert set(report["judge"]) >= {"train", "validation"} and report["clip"]["validation"]
    registry = f"sqlite:///{Path(release).parent}/mlflow.db"
    decision = run("promote", release, "--to", "champion", "--name", name, "--tracking", registry,
                   settings=("must_beat_chance=false",))  # fmt: skip
    assert decision["action"] == "promote" and decision["version"] == 1
    picture = f"{release}.png"
    run("sample", f"models:/{name}@champion", "--tracking", registry, "--prompt", "picture 1", "--to", picture,
        settings=settings)  # fmt: skip
    with Image.open(picture) as image:
        assert image.width > 192


def test_an_unclip_with_an_autoregressive_prior(make_job, run, capsys, shards, embeddings, tmp_path):
    prior, plain = (
        make_job(name, *AR_PRIOR, *STEPS, family="ar_prior", embeddings=embeddings)
        for name in ("ar", "plain")
    )
    assert train_on_two(prior, plain) in (10, 20, 30)
    decoder = make_job(
        "decoder", *DECODER, "training.num_steps=2", SILENT, family="decoder", embeddings=embeddings
    )
    upsampler = make_job("upsampler", "training.num_steps=2", SILENT)
    parts = [prior.run_uri, *(train(job).run for job in (decoder, upsampler))]
    release = str(tmp_path / "release")
    exported = run("export", *parts, "--format", "safetensors", "--to", release)
    assert set(exported["models"]) == {"clip", "ar_prior", "decoder", "upsampler"}
    to_an_alias(run, release, shards, "unclip", *FEW_STEPS)
    # What it is not made for names what is.
    for words, remedy in (
        (["evaluate", prior.run_uri, "--data", shards], "no model of kind 'decoder'"),
        (["calibrate", prior.run_uri, "--data", shards], "give a diffusion prior"),
        (
            ["export", release, "--format", "diffusers", "--to", str(tmp_path / "d")],
            "export it as safetensors",
        ),
    ):
        assert main(words) in (2, 3)
        assert remedy in capsys.readouterr().err


def test_a_direct_baseline(make_job, run, capsys, shards, clip, tmp_path):
    job, plain = (make_job(name, *DIRECT, *STEPS, family="direct", clip=clip) for name in ("direct", "plain"))
    assert train_on_two(job, plain) in (10, 20, 30)
    release = str(tmp_path / "release")
    exported = run("export", job.run_uri, "--format", "safetensors", "--to", release)
    assert set(exported["models"]) == {"clip", "direct"}
    to_an_alias(run, release, shards, "direct")
    for words, remedy in (
        (["export", release, "--format", "diffusers", "--to", str(tmp_path / "d")], "export it as safetensors"),
        (["sample", release, "--prompt", "x", "--to", str(tmp_path / "x.png"),
          "--set", "generation.decoder.num_steps=2"], "draws in one forward"),
    ):  # fmt: skip
        assert main(words) in (2, 3)
        assert remedy in capsys.readouterr().err
