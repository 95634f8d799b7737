"""A training within a CPU budget: what its stages are asked, and what it cannot count."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dalle2_train.data.shards.index import index
from dalle2_train.data.sources.ingest import ingest
from dalle2_train.errors import InputError
from dalle2_train.launch import TrainJob
from dalle2_train.recipe import load_recipe
from dalle2_train.workflow import Workflow, train_within
from dalle2_train.workflow.budget import Calibration
from dalle2_train.workflow.questions import data_digest


def write_set(folder: Path, count: int) -> str:
    """Shards of so many pictures, indexed anew where they were there."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (20, 20), (number, 90, 200)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(f"colour {number}")
    return ingest(f"folder:{pictures}", str(folder / f"shards-{count}")).uri


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    recipe = load_recipe("upsampler/tiny", ["training.global_batch_size=8"])
    return TrainJob(recipe, write_set(tmp_path, 12), str(tmp_path / "runs"), "upsampler")


def test_an_epoch_is_the_splits_samples_rounded_up_to_whole_batches(job: TrainJob) -> None:
    assert train_within.epoch_steps(job) == 2


def test_loader_processes_are_refused(job: TrainJob, tmp_path: Path) -> None:
    recipe = replace(job.recipe, data=replace(job.recipe.data, num_workers=2))
    with pytest.raises(InputError, match=r"data\.num_workers=2: .* set 0 for upsampler"):
        train_within.train_within(Workflow(str(tmp_path / "flow")), replace(job, recipe=recipe), 9.0)


def test_other_shards_are_another_question(
    job: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    priced: list[str] = []
    monkeypatch.setattr(
        train_within, "_calibrate", lambda job, _: priced.append(job.data) or Calibration(3, 0.0, 1.0)
    )
    monkeypatch.setattr(train_within, "_train", lambda _, job: train_within.Trained(job.run_uri, 3, 1, 1.0))
    flow = Workflow(str(tmp_path / "flow"))
    for _ in range(2):
        train_within.train_within(flow, job, 9.0)
    assert priced == [job.data]
    other = write_set(tmp_path, 13)
    train_within.train_within(flow, replace(job, data=other), 9.0)
    assert priced == [job.data, other]


def test_shards_that_are_no_longer_what_their_manifest_says_are_told(job: TrainJob) -> None:
    before = data_digest(job.data)
    tar = next(Path(job.data).rglob("*.tar"))
    tar.write_bytes(tar.read_bytes() + bytes(10_240))
    with pytest.raises(InputError, match="run `dalle2-train shards index"):
        data_digest(job.data)
    index(job.data)
    assert data_digest(job.data) != before
