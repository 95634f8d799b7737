"""The paper's prior and decoder, tiny: trained with text encoders of their own, resumed, sampled from, not exported."""

from dataclasses import replace

import pytest
import torch
from tiny_clip import save_tiny_clip
from toy_training import losses

from dalle2_train.checkpoints import open_model
from dalle2_train.data.embeddings.layout import load
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.export.diffusers_folder import check_exportable
from dalle2_train.generation.config import DecoderStageConfig, GenerationConfig, PriorStageConfig
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.pipeline import generate
from dalle2_train.launch import check, train
from dalle2_train.launch.embed import embed

OWN = tuple(
    f"model.network.text_encoder.{size}"
    for size in ("context_length=12", "vocab_size=640", "width=16", "depth=1", "num_heads=2")
)
COMMON = (*OWN, "profile=paper", "model.network.embed_dim=32", "training.global_batch_size=8", "training.num_threads=1",
          "training.num_steps=4", "optimizer.schedule=constant", "sampling.num_samples=2",
          "sampling.num_steps=2", "sampling.guidance_scale=2")  # fmt: skip
SIZES = {
    "prior": (*COMMON, "model.network.num_text_tokens=12", "model.network.num_heads=1", "model.network.depth=1",
              "model.whiten_error=false", "model.embedding_scale=1.0"),
    "decoder": (*COMMON, "model.network.image_size=8", "data.image_size=8", "model.network.channels=[8, 16]",
                "model.network.attention=[false, true]", "model.network.head_dim=8", "model.network.time_dim=16",
                "model.objective.prediction_type=epsilon", "model.objective.weighting=simple",
                "model.whiten_image_embed=false"),
}  # fmt: skip


@pytest.fixture(scope="module")
def embedded(shards, tmp_path_factory) -> dict[str, str]:
    """clip, and its embeddings without and with CLIP's text states."""
    folder = tmp_path_factory.mktemp("embedded")
    clip = save_tiny_clip(folder / "clip")
    places = {"plain": str(folder / "plain"), "texts": str(folder / "texts")}
    for name, to in places.items():
        embed(shards, to, clip, dtype="fp32", text_encodings=name == "texts")
    return {"clip": clip, **places}


@pytest.fixture
def make_paper_job(make_job, embedded):
    def make(family, name, *settings, embeddings="plain"):
        return make_job(name, *SIZES[family], *settings, family=family, embeddings=embedded[embeddings])

    return make


def test_both_train_go_on_and_are_sampled_from_but_are_not_exported(make_paper_job):
    runs = []
    for family in SIZES:
        whole = make_paper_job(family, f"{family}-whole", "training.sample_every_steps=4")
        train(whole)
        half = make_paper_job(family, f"{family}-half", "training.num_steps=2",
                              "training.sample_every_steps=0", embeddings="texts")  # fmt: skip
        train(half)
        assert train(replace(half, recipe=whole.recipe)).resumed_from == 2
        assert losses(half.run_uri) == losses(whole.run_uri)
        weights = open_model(whole.run_uri)[1]
        assert any(name.startswith("text_encoder.") for name in weights)
        runs.append(whole.run_uri)

    unclip = load_unclip(runs, parts=("prior", "decoder"))
    config = GenerationConfig(PriorStageConfig(num_steps=3), DecoderStageConfig(num_steps=3))
    prompts = ["picture 1", "picture 2 of a long row of pictures", ""]
    pictures = generate(unclip, prompts, 0, config)
    assert pictures.shape == (3, 3, 8, 8)
    alone = generate(unclip, prompts, 0, replace(config, batch_size=1))
    assert (pictures.int() - alone.int()).abs().max() <= 1
    with pytest.raises(
        RefusedError, match=r"the prior has a text encoder of its own.*the decoder has a text encoder"
    ):
        check_exportable(unclip)


def test_a_text_encoder_that_clips_tokens_do_not_fit_is_told(make_paper_job):
    for changes, words in (
        (("context_length=7",), r"text_encoder.context_length is 7, but .* gives 8 tokens; give at least"),
        (("vocab_size=100",), r"text_encoder.vocab_size is 100, but the CLIP's tokenizer has"),
    ):
        settings = [f"model.network.text_encoder.{change}" for change in changes]
        with pytest.raises(InputError, match=words):
            check(make_paper_job("decoder", "run", *settings), 0)


def test_a_scale_that_does_not_fit_the_embeddings_is_told_with_one_that_does(make_paper_job, embedded):
    info = load(embedded["plain"]).info
    size = (torch.tensor(info.mean).square() + torch.tensor(info.std).square()).mean().sqrt()
    with pytest.raises(InputError, match=r"embedding_scale is 100\.0") as caught:
        check(make_paper_job("prior", "run", "model.embedding_scale=100"), 0)
    assert f"set it to {1 / size:.3g}" in str(caught.value)
    job = make_paper_job("prior", "run", f"model.embedding_scale={1 / size:.3g}", "training.num_steps=1",
                         "training.sample_every_steps=0")  # fmt: skip
    train(job)
    weights = open_model(job.run_uri)[1]
    assert not weights["clip_mean"].any()
    torch.testing.assert_close(weights["clip_std"], torch.full((1, 32), size.item()), rtol=1e-2, atol=0)
