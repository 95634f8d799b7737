"""Small pictures that are made with the data: by each sample's place in the order, not by who reads it."""

import tarfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dalle2_train.data.config import DataConfig
from dalle2_train.data.pictures.bsr import BsrConfig
from dalle2_train.data.samples.degradation import Degradation
from dalle2_train.data.shards.writer import Record, write_shards
from dalle2_train.data.stream.batches import DegradedBatch, UpsamplerBatch
from dalle2_train.data.stream.stream import Stream
from dalle2_train.errors import InputError

CONFIG = DataConfig(32, crop="random", min_crop_fraction=0.6, flip=True, num_lanes=4, block_size=4)
DEGRADATION = Degradation(8, BsrConfig(blur_sigma=(0.0, 0.3), noise_std=(0, 2), jpeg_quality=(90, 95)))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Coarse random pictures, no two alike."""
    from numpy.random import default_rng
    from PIL import Image

    from dalle2_train.data.pictures.decode import encode_png

    def records():
        for number in range(13):
            coarse = default_rng(number).integers(0, 256, (3, 3, 3), dtype="uint8")
            image = Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)
            yield Record(encode_png(image), "png", "none", {"split": "train"}, 48, 40)

    where = str(tmp_path_factory.mktemp("set"))
    write_shards(records(), where, {"kind": "coarse"}, samples_per_shard=5)
    return where


def seen(uri: str, world_size: int, num_workers: int = 0, num_batches: int = 6) -> dict[int, tuple]:
    """Global index → (picture, small picture)."""
    config = DataConfig(**{**CONFIG.__dict__, "num_workers": num_workers})
    found = {}
    for rank in range(world_size):
        stream = Stream(uri, config, seed=3, global_batch_size=8, batch_type=DegradedBatch, rank=rank,
                        world_size=world_size, degradation=DEGRADATION)  # fmt: skip
        for _, (batch, _) in zip(range(num_batches), stream, strict=False):
            for index, image, small in zip(*batch, strict=True):
                found[int(index)] = (image, small)
        stream.close()
    return found


def test_ranks_change_nothing(uri: str):
    alone, together = seen(uri, 1), seen(uri, 4)
    assert alone.keys() == together.keys() == set(range(48))
    for index, pair in alone.items():
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(pair, together[index], strict=True))


@pytest.mark.system
def test_workers_change_nothing(uri: str):
    alone, by_workers = seen(uri, 1), seen(uri, 1, num_workers=2)
    for index, pair in alone.items():
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(pair, by_workers[index], strict=True))


def test_the_small_picture_shows_what_the_large_one_does_and_every_visit_draws_anew(uri: str):
    found = seen(uri, 1)
    for image, small in found.values():
        assert image.shape == (3, 32, 32) and small.shape == (3, 8, 8)
        means = F.avg_pool2d(image.float(), 4)
        right = (small - means).abs().mean()
        mirrored = (small.flip(-1) - means).abs().mean()
        assert right < 0.5 * mirrored
    assert len({small.numpy().tobytes() for _, small in found.values()}) == len(found)


def test_a_batch_with_small_pictures_needs_what_makes_them(uri: str):
    for batch_type, degradation in ((DegradedBatch, None), (UpsamplerBatch, DEGRADATION)):
        with pytest.raises(InputError, match="degradation"):
            Stream(uri, CONFIG, seed=3, global_batch_size=8, batch_type=batch_type, degradation=degradation)


@pytest.mark.parametrize("batch_type", [UpsamplerBatch, DegradedBatch])
def test_pictures_need_no_caption(uri: str, tmp_path: Path, batch_type: type):
    for shard in Path(uri).glob("*.tar"):
        with tarfile.open(shard) as whole, tarfile.open(tmp_path / shard.name, "w") as bare:
            for member in whole:
                if not member.name.endswith(".txt"):
                    bare.addfile(member, whole.extractfile(member))
    faults = []
    degradation = DEGRADATION if batch_type is DegradedBatch else None
    stream = Stream(str(tmp_path), CONFIG, seed=3, global_batch_size=8, batch_type=batch_type,
                    degradation=degradation, on_fault=faults.append)  # fmt: skip
    batches = [batch for _, (batch, _) in zip(range(3), stream, strict=False)]
    stream.close()
    assert len(batches) == 3 and not faults
