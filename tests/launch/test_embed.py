"""Embedding with a real CLIP, and training on what it left: with stored text encodings, without, and without shards."""

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_clip import CONFIG, save_tiny_clip
from toy_training import losses

from dalle2_train.checkpoints import open_model
from dalle2_train.cli import main
from dalle2_train.data.config import DataConfig
from dalle2_train.data.pictures.decode import decode_image
from dalle2_train.data.samples.pipeline import pipeline
from dalle2_train.data.stream.batches import PriorBatch, PriorTokenBatch
from dalle2_train.data.stream.stream import Stream
from dalle2_train.encoders import load_clip
from dalle2_train.encoders.captions import CaptionReader
from dalle2_train.errors import InputError
from dalle2_train.launch import check, train
from dalle2_train.launch.assembly import assemble
from dalle2_train.launch.embed import embed, index_foreign
from dalle2_train.launch.local import one_rank_strategy
from dalle2_train.training.texts import text_of

SIZES = ("model.network.embed_dim=32", "model.network.num_heads=1", "model.network.depth=1",
         "model.network.num_text_tokens=8", "data.num_lanes=4", "training.global_batch_size=8",
         "training.num_threads=1", "training.num_steps=3", "training.sample_every_steps=0")  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def embeddings(shards, clip, tmp_path_factory) -> dict[str, str]:
    """dtype → folder; "fp32" has text encodings too."""
    folder = tmp_path_factory.mktemp("embeddings")
    for dtype in ("fp32", "fp16", "bf16"):
        embed(shards, str(folder / dtype), clip, dtype=dtype, text_encodings=dtype == "fp32", batch_size=7)
    return {dtype: str(folder / dtype) for dtype in ("fp32", "fp16", "bf16")}


def step_of(dtype: str) -> float:
    """Half a step of the dtype, relative."""
    return {"fp32": 1e-5, "fp16": 2**-11, "bf16": 2**-8}[dtype]


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_what_is_read_is_what_the_clip_gives_online(shards, clip, embeddings, dtype):
    encoder, seen = load_clip(clip), {}
    for raw in pipeline(shards, "train"):
        image = torch.from_numpy(decode_image(raw["png"], CONFIG.image_size).copy()).permute(2, 0, 1)[None]
        seen[raw["txt"].decode()] = encoder.encode_image(image)[0]
    words = {tuple(encoder.tokenize([text])[0][0].tolist()): text for text in seen}
    stream = Stream(embeddings[dtype], DataConfig(num_lanes=4), seed=0, global_batch_size=8,
                    batch_type=PriorTokenBatch, tokenize=encoder.tokenize)  # fmt: skip
    for batch, _ in islice(stream, 8):
        theirs = torch.stack([seen[words[tuple(ids.tolist())]] for ids in batch.token_ids])
        torch.testing.assert_close(batch.image_embed, theirs, rtol=step_of(dtype), atol=1e-5)


def test_text_made_of_tokens_is_the_stored_text(clip, embeddings):
    encoder = load_clip(clip)
    options = {"seed": 0, "global_batch_size": 8, "tokenize": encoder.tokenize}
    stored, tokens = (
        Stream(embeddings["fp32"], DataConfig(num_lanes=4), batch_type=kind, **options)
        for kind in (PriorBatch, PriorTokenBatch)
    )
    encode = CaptionReader(encoder).encode
    for (ours, _), (theirs, _) in islice(zip(tokens, stored, strict=True), 5):
        with torch.autocast("cpu", torch.bfloat16):  # as training may be under
            made, kept = text_of(ours, encode), text_of(theirs, None)
        assert torch.equal(made.text_mask, kept.text_mask)
        torch.testing.assert_close(made.text_embed, kept.text_embed, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(made.text_encodings, kept.text_encodings, rtol=2**-11, atol=1e-4)
        assert made.text_encodings.dtype == torch.float32


def test_the_prior_trains_on_embeddings_without_shards(make_job, shards, embeddings, tmp_path):
    """The same losses with the shards' place and without; with text made on the way nearly those of stored text."""
    runs = {
        "stored": (shards, "fp32"),
        "alone": (embeddings["fp32"], None),
        "tokens": (embeddings["fp16"], None),
        "beside": (shards, "fp16"),
    }
    found = {}
    for name, (data, dtype) in runs.items():
        job = make_job(
            name, *SIZES, family="prior", data=data, embeddings=embeddings[dtype] if dtype else None
        )
        train(job)
        found[name] = losses(job.run_uri)
    assert found["alone"] == found["stored"]
    assert found["tokens"] == found["beside"]
    for ours, theirs in zip(found["tokens"], found["stored"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-2)


def test_the_clip_is_no_part_of_what_is_trained(make_job, embeddings):
    job = make_job("run", *SIZES, family="prior", data=embeddings["fp16"])
    train(job)
    assert not [name for name in open_model(job.run_uri)[1] if "text_model" in name]


def test_a_recipes_gain_is_in_the_first_weights(make_job, embeddings):
    def first_weights(gain: float) -> dict[str, torch.Tensor]:
        settings = ("model.network.embed_dim=32", "training.sample_every_steps=0",
                    f"model.image_embed_gain={gain}")  # fmt: skip
        job = make_job("run", *settings, family="decoder", embeddings=embeddings["fp32"])
        with one_rank_strategy(job.recipe.parallel):
            return dict(assemble(job.absolute()).module.network.named_parameters())

    plain, loud = first_weights(1), first_weights(12)
    readers = [name for name in plain if not torch.equal(plain[name], loud[name])]
    assert [name.split(".")[1][:10] for name in readers] == ["clip_image", "clip_extra"]
    assert all(torch.equal(loud[name], 12 * plain[name]) for name in readers)


def test_what_does_not_fit_is_said_before_anything_starts(make_job, shards, clip, embeddings, tmp_path):
    other = save_tiny_clip(tmp_path / "other", seed=1)
    ours, theirs = load_clip(clip).fingerprint, load_clip(other).fingerprint
    job = make_job("run", *SIZES, family="prior", data=embeddings["fp16"], clip=other)
    with pytest.raises(InputError, match=f"(?s){theirs}.*{ours}"):
        check(job, 0)
    with pytest.raises(InputError, match=f"of the CLIP {ours}, not of {theirs}"):
        embed(shards, embeddings["fp16"], other)
    with pytest.raises(InputError, match="no pictures, which a decoder learns from"):
        check(make_job("run", "model.network.embed_dim=32", family="decoder", data=embeddings["fp16"]), 0)
    with pytest.raises(InputError, match="no pictures, which the samples during training need"):
        train(
            make_job("run", *SIZES, "training.sample_every_steps=3", family="prior", data=embeddings["fp16"])
        )
    with pytest.raises(
        InputError, match=r"embeddings have 32 dimensions, but model.network.embed_dim is 192"
    ):
        check(make_job("run", family="prior", data=embeddings["fp16"]), 0)


def test_embeddings_of_another_program_are_taken_up(make_job, clip, embeddings, tmp_path):
    theirs = Path(shutil.copytree(embeddings["fp16"], tmp_path / "theirs"))
    for name in ("embeddings.json", "covariance.npy"):
        (theirs / name).unlink()
    shutil.rmtree(theirs / "parts")
    shutil.rmtree(theirs / "text_emb")
    manifest = index_foreign(str(theirs), clip)
    vectors = np.concatenate([np.load(file) for file in sorted((theirs / "img_emb").glob("*.npy"))])
    assert manifest.num_samples == len(vectors) and manifest.info.dtype == "fp16"
    jobs = [
        make_job(name, *SIZES, family="prior", data=data)
        for name, data in (("theirs", str(theirs)), ("ours", embeddings["fp16"]))
    ]
    for job in jobs:
        train(job)
    assert losses(jobs[0].run_uri) == losses(jobs[1].run_uri)


def test_a_dry_run_neither_embeds_nor_indexes(shards, clip, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    shutil.copy(Path(shards) / "00000.tar", tmp_path / "set")
    arguments = ["shards", "embed", str(tmp_path / "set"), "--clip", clip, "--to", str(tmp_path / "to")]
    assert main([*arguments, "--dry-run"]) == 0
    assert "in 1 shards" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["00000.tar", "set"]
