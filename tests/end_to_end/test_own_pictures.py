"""The README's table from top to bottom, with somebody's own pictures and a few steps of each training."""

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from dalle2_train.checkpoints import open_model
from dalle2_train.cli import main

# mlflow's use of SQLAlchemy, and diffusers' at import.
pytestmark = pytest.mark.filterwarnings("default")

COLOURS = ("red", "green", "blue", "gold", "black", "pink")
SHAPES = ("disc", "square", "bar", "frame", "dot")
CLIP = (
    "model.encoder.embed_dim=32",
    "model.encoder.text_depth=1",
    "model.encoder.text_heads=2",
    "model.encoder.vision_width=32",
    "model.encoder.vision_depth=1",
    "model.encoder.vision_heads=2",
)
PRIOR = ("model.network.embed_dim=32", "model.network.num_heads=1", "model.network.depth=1")
DECODER = ("model.network.embed_dim=32", "model.network.channels=[8,16]", "model.network.attention=[false,true]",
           "model.network.head_dim=8", "model.network.time_dim=32")  # fmt: skip
UPSAMPLER = ("model.network.channels=[8,8]",)
TRAINING = ("training.num_steps=3", "training.global_batch_size=8", "training.num_threads=1")
SAMPLER = ("prior.num_steps=2", "prior.sampler=analytic_dpm", "prior.num_draws=2",
           "decoder.num_steps=2", "upsampler.num_steps=1", "prior.guidance_scale=1",
           "decoder.guidance_scale=1")  # fmt: skip


def draw(folder: Path) -> None:
    """A picture with a caption of every colour and shape."""
    folder.mkdir()
    for colour in COLOURS:
        for shape in SHAPES:
            image = Image.new("RGB", (70, 90), "white")
            pen, box = ImageDraw.Draw(image), (15, 20, 55, 60)
            match shape:
                case "disc":
                    pen.ellipse(box, fill=colour)
                case "square":
                    pen.rectangle(box, fill=colour)
                case "bar":
                    pen.rectangle((5, 40, 65, 50), fill=colour)
                case "frame":
                    pen.rectangle(box, outline=colour, width=6)
                case "dot":
                    pen.ellipse((30, 40, 40, 50), fill=colour)
            image.save(folder / f"{colour}-{shape}.png")
            (folder / f"{colour}-{shape}.txt").write_text(f"a {colour} {shape}")


@pytest.fixture
def run(capsys):
    """Runs one command line; returns its JSON."""

    def command(*words: str) -> dict:
        assert main([*words, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return command


def settings(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def test_from_a_folder_of_pictures_to_a_champion(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # relative paths, as a person gives them
    draw(tmp_path / "pictures")
    splits = run("shards", "ingest", "folder:pictures", "--to", "shards")["splits"]
    assert splits["train"] + splits["validation"] == 30 and splits["validation"] >= 2
    assert run("shards", "check", "shards")["faults"] == []

    run(
        "train",
        "clip/tiny",
        "--data",
        "shards",
        "--storage",
        "runs",
        "--name",
        "clip",
        *settings(*CLIP, *TRAINING),
    )
    run("shards", "embed", "shards", "--clip", "runs/clip/model", "--to", "embeddings")
    for family, sizes in (("prior", PRIOR), ("decoder", DECODER), ("upsampler", UPSAMPLER)):
        embeddings = [] if family == "upsampler" else ["--embeddings", "embeddings"]
        pictures = ("training.sample_every_steps=3", "sampling.num_samples=2", "sampling.num_steps=2")
        run("train", f"{family}/tiny", "--data", "shards", *embeddings, "--storage", "runs", "--name", family,
            *settings(*sizes, *TRAINING, *pictures))  # fmt: skip
        assert Path("runs", family, "samples", "step-00000003.png").exists()

    # The recipe whitens; what is released reads plain embeddings.
    assert "text_proj.whitening.matrix" in open_model("runs/decoder/checkpoints/step-00000003")[1]
    assert not [name for name in open_model("runs/decoder")[1] if "whitening" in name]
    Path("embeddings", "covariance.npy").unlink()
    for family, sizes in (("prior", PRIOR), ("decoder", DECODER)):
        assert main(["train", f"{family}/tiny", "--data", "shards", "--embeddings", "embeddings", "--storage", "runs",
                     "--name", "other", "--dry-run", *settings(*sizes)]) == 2  # fmt: skip
        assert "has no covariance.npy; run `shards embed` again" in capsys.readouterr().err

    parts = [f"runs/{family}" for family in ("prior", "decoder", "upsampler")]
    run("export", *parts, "--format", "safetensors", "--to", "uncalibrated")
    calibrated = run("calibrate", "runs/prior", "--data", "shards", *settings("num_timesteps=3"))
    assert calibrated["num_samples"] == splits["train"] and len(calibrated["mean_squared_eps"]) == 3
    assert main(["export", *parts, "--format", "safetensors", "--to", "uncalibrated"]) == 2
    assert main(["calibrate", "uncalibrated/prior", "--data", "shards"]) == 2
    assert "is part of a release, which nothing changes" in capsys.readouterr().err
    run("export", *parts, "--format", "safetensors", "--to", "release")
    asked = [f"generation.{change}" for change in SAMPLER]
    report = run("evaluate", "release", "--data", "shards", *settings("evaluation.num_queries=2", *asked))
    assert set(report["judge"]) >= {"train", "validation"} and "compositional" not in report["judge"]
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    promote = ("promote", "release", "--to", "champion", "--tracking", registry)
    assert main([*promote]) == 3  # among three pictures any is one of the first ten
    assert "does not beat chance" in capsys.readouterr().err
    decision = run(*promote, *settings("must_beat_chance=false"))
    assert decision["metric"] == "judge.validation.r10"

    champion = "models:/unclip@champion"
    run("sample", champion, "--tracking", registry, "--prompt", "a red disc", "--prompt", "a blue bar",
        "--to", "two.png", *settings(*asked))  # fmt: skip
    with Image.open("two.png") as picture:
        assert picture.width > 2 * 192
    run("export", champion, "--tracking", registry, "--format", "diffusers", "--to", "diffusers")
    assert json.loads(Path("diffusers", "model_index.json").read_text())["_class_name"] == "UnCLIPPipeline"
