"""The embeddings' statistics stay those of a run's first step, whatever it is resumed with."""

from dataclasses import replace

from tiny_clip import save_tiny_clip
from toy_training import losses

from dalle2_train.launch import train
from dalle2_train.launch.embed import embed

SIZES = ("model.network.embed_dim=32", "model.network.num_heads=1", "model.network.depth=1",
         "model.network.num_text_tokens=8", "training.global_batch_size=8", "training.num_threads=1",
         "training.sample_every_steps=0", "optimizer.schedule=constant")  # fmt: skip


def test_a_whitened_error_stays_that_of_the_weights_to_begin_with(make_job, shards, tmp_path):
    """Going on they need not be named."""
    embeddings = str(tmp_path / "embeddings")
    embed(shards, embeddings, save_tiny_clip(tmp_path / "clip"), dtype="fp32", text_encodings=True)

    def job(name: str, *settings: str, **more):
        return make_job(name, *SIZES, *settings, family="prior", embeddings=embeddings, **more)

    scaled = ("model.embedding_scale=1.0", "model.whiten_error=true")
    first = job("first", "training.num_steps=1", "model.embedding_scale=1.0")
    train(first)
    whole = job("whole", "training.num_steps=4", *scaled, init_from=first.run_uri)
    train(whole)
    half = replace(whole, name="half", recipe=job("half", "training.num_steps=2", *scaled).recipe)
    train(half)
    assert train(replace(whole, name="half", init_from=None)).resumed_from == 2
    assert losses(half.run_uri) == losses(whole.run_uri)
