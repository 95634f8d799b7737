"""The autoregressive prior's training: what it measures before its first step, and that this stays with the model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from picture_shards import write_shards
from PIL import Image
from processes import call_in_ranks
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from statistics_rank import assemble_elsewhere
from tiny_clip import save_tiny_clip
from tiny_recipes import AR_PRIOR, SILENT
from toy_training import losses

from dalle2_train.checkpoints import open_model
from dalle2_train.data.embeddings.layout import load
from dalle2_train.errors import InputError
from dalle2_train.launch import check, statistics, train
from dalle2_train.launch.embed import embed


@pytest.fixture(scope="module")
def embeddings(shards, tmp_path_factory) -> str:
    clip, to = (
        save_tiny_clip(tmp_path_factory.mktemp("clip")),
        str(tmp_path_factory.mktemp("embeddings") / "set"),
    )
    embed(shards, to, clip, dtype="fp32", text_encodings=True)
    return to


@pytest.fixture
def job(make_job, embeddings):
    """job(name, settings…): on the shards and their embeddings."""

    def make(name: str, *settings: str, **more):
        return make_job(name, *AR_PRIOR, *settings, family="ar_prior", **{"embeddings": embeddings, **more})

    return make


def stored(embeddings: str, column: str) -> np.ndarray:
    files = sorted(Path(embeddings, column).glob("*.npy"))
    return np.concatenate([np.load(file) for file in files]).astype(np.float64)


def test_components_and_similarities_are_measured_and_kept_with_the_model(job, embeddings, capsys):
    run = job("run", "training.num_steps=2", "training.sample_every_steps=2", "sampling.num_samples=2")
    train(run)
    manifest, weights = open_model(run.run_uri)
    assert manifest.kind == "ar_prior" and manifest.config["network"]["num_dims"] == 6
    train_rows = np.array([number % 5 != 0 for number in range(40)])
    image, text = (stored(embeddings, column) for column in ("img_emb", "text_emb"))
    assert len(image) == 40
    theirs = PCA(svd_solver="full").fit(image[train_rows])
    ours = weights["embed_codes.directions"].double().numpy()
    along = (ours * theirs.components_[:6]).sum(1)
    np.testing.assert_allclose(np.abs(along), 1, atol=1e-4)
    np.testing.assert_allclose(weights["embed_codes.mean"], image[train_rows].mean(0), atol=1e-5)
    variances = theirs.explained_variance_ * 31 / 32
    np.testing.assert_allclose(weights["embed_codes.std"], variances[:6] ** 0.5, rtol=1e-4)
    left_out = variances[6:].sum() / variances.sum()
    assert weights["embed_codes.left_out"].item() == pytest.approx(left_out, rel=1e-4)
    cosines = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
    # All 32 samples are met equally often in 4,096.
    expected = np.quantile(np.tile(cosines[train_rows], 128), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(weights["dot_edges"], expected, atol=1e-5)
    assert (
        f"6 of 32 components leave out {left_out:.2%} of the embeddings' variance" in capsys.readouterr().err
    )
    with Image.open(f"{run.run_uri}/samples/step-00000002.png") as picture:
        assert picture.width > 2 * 16


def refuse(*_: object) -> None:
    raise AssertionError("what the weights bring is not measured again")


def test_going_on_is_as_if_there_had_been_no_stop_and_measures_nothing(job, monkeypatch, capsys):
    whole = job("whole", "training.num_steps=4", SILENT)
    train(whole)
    train(job("half", "training.num_steps=2", SILENT))
    half = job("half", "training.num_steps=4", SILENT)
    for measure in ("use_components", "use_dots"):
        monkeypatch.setattr(statistics, measure, refuse)
    capsys.readouterr()
    assert train(half).resumed_from == 2
    assert losses(half.run_uri) == losses(whole.run_uri)
    assert "components" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def other_embeddings(embeddings, tmp_path_factory) -> tuple[str, str]:
    """(shards, embeddings) of other pictures, by the same CLIP."""
    folder = tmp_path_factory.mktemp("others")
    shards = write_shards(folder, seed=1)
    embed(shards, str(folder / "set"), load(embeddings).info.clip_uri, dtype="fp32", text_encodings=True)
    return shards, str(folder / "set")


def test_weights_to_begin_with_bring_their_statistics(job, other_embeddings, monkeypatch, capsys):
    first = job("first", "training.num_steps=1", SILENT)
    train(first)
    weights = open_model(first.run_uri)[1]
    for measure in ("use_components", "use_dots"):
        monkeypatch.setattr(statistics, measure, refuse)
    shards, others = other_embeddings
    second = job("second", "training.num_steps=1", "optimizer.learning_rate=0.0", SILENT,
                 init_from=first.run_uri, data=shards, embeddings=others)  # fmt: skip
    capsys.readouterr()
    train(second)
    ours = open_model(second.run_uri)[1]
    assert all(torch.equal(ours[name], weights[name]) for name in weights)
    # Told is what these directions leave out of the embeddings that are trained on.
    rows = stored(others, "img_emb")[[number % 5 != 0 for number in range(40)]]
    along = (rows - rows.mean(0)) @ weights["embed_codes.directions"].double().numpy().T
    share = 1 - along.var(0).sum() / rows.var(0).sum()
    assert f"components leave out {share:.2%} of" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_told_before_anything_is_said_of_components(job, capsys):
    first = job("first", "model.network.num_dims=5", "training.num_steps=1", SILENT)
    train(first)
    capsys.readouterr()
    with pytest.raises(InputError, match=r"--set model\.network\.num_dims=5"):
        train(job("second", "training.num_steps=1", SILENT, init_from=first.run_uri))
    assert "components" not in capsys.readouterr().err


@pytest.mark.system
@pytest.mark.filterwarnings("default")
def test_one_rank_measures_for_all_and_all_hear_of_its_failure(job, tmp_path):
    plain = job("plain", "training.num_steps=2", SILENT)
    assert call_in_ranks(assemble_elsewhere, 2, tmp_path, plain, False) == [0, 0]
    ours, theirs = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert ours["dot_edges"].diff().min() > 0 and ours["embed_codes.left_out"] > 0
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert call_in_ranks(assemble_elsewhere, 2, tmp_path, plain, True) == [0, 0]
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["rank 0 cannot"] * 2


def test_without_shards_and_without_stored_text_it_learns_nearly_the_same(
    job, make_job, shards, embeddings, tmp_path
):
    plain = job("plain", "training.num_steps=2", SILENT)
    train(plain)
    clip = str(Path(open_model(plain.run_uri)[0].clip.uri))
    tokens = str(tmp_path / "tokens")
    embed(shards, tokens, clip, dtype="fp32")
    alone = make_job("alone", *AR_PRIOR, "training.num_steps=2", SILENT, family="ar_prior", data=tokens)
    train(alone)
    for ours, theirs in zip(losses(alone.run_uri), losses(plain.run_uri), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_what_cannot_work_is_said_before_anything_starts(job, make_job):
    for start in (check, train):
        with pytest.raises(InputError, match=r"vary along 31 directions, num_dims is 32"):
            start(job("run", "model.network.num_dims=32", SILENT), 0)
        with pytest.raises(InputError, match=r"num_text_tokens is 24, but the CLIP reads 8"):
            start(job("run", "model.network.num_text_tokens=24", SILENT), 0)
    with pytest.raises(
        InputError, match=r"sampling\.num_steps is 9, but an ar_prior takes a step for each code"
    ):
        train(job("run", "sampling.num_steps=9"))


def test_the_papers_form_trains_a_text_encoder_of_its_own_and_is_drawn_from(job):
    own = ("context_length=12", "vocab_size=640", "width=16", "depth=1", "num_heads=2")
    settings = [f"model.network.text_encoder.{size}" for size in own]
    run = job("own", "profile=paper", "model.network.num_text_tokens=12", *settings, "training.num_steps=2",
              "training.sample_every_steps=2", "sampling.num_samples=2", "sampling.guidance_scale=2")  # fmt: skip
    train(run)
    assert open_model(run.run_uri)[1]["text_encoder.token_embedding.weight"].shape == (640, 16)
    assert Path(f"{run.run_uri}/samples/step-00000002.png").exists()
