"""The embeddings' statistics stay those of a run's first step, whatever it is resumed with."""

from dataclasses import replace

from picture_shards import write_shards
from tiny_clip import save_tiny_clip
from toy_training import losses

from dalle2_train.launch import train
from dalle2_train.launch.embed import embed

SIZES = ("model.network.embed_dim=32", "model.network.num_heads=1", "model.network.depth=1",
         "model.network.num_text_tokens=8", "training.global_batch_size=8", "training.num_threads=1",
         "training.sample_every_steps=0", "optimizer.schedule=constant")  # fmt: skip


def test_a_whitened_error_stays_that_of_the_weights_to_begin_with(make_job, shards, tmp_path):
    """They bring the statistics of other embeddings, and going on they need not be named."""
    clip, embedded = save_tiny_clip(tmp_path / "clip"), {}
    for data in (shards, write_shards(tmp_path / "other", seed=1)):
        embedded[data] = f"{data}-embedded-{tmp_path.name}"
        embed(data, embedded[data], clip, dtype="fp32", text_encodings=True)

    def job(name: str, data: str, *settings: str, **more):
        return make_job(name, *SIZES, *settings, family="prior", data=data, embeddings=embedded[data], **more)

    first = job("first", str(tmp_path / "other" / "shards"), "training.num_steps=1")
    train(first)
    whole = job("whole", shards, "training.num_steps=4", "model.whiten_error=true", init_from=first.run_uri)
    train(whole)
    two_steps = job("half", shards, "training.num_steps=2", "model.whiten_error=true").recipe
    half = replace(whole, name="half", recipe=two_steps)
    train(half)
    assert train(replace(whole, name="half", init_from=None)).resumed_from == 2
    assert losses(half.run_uri) == losses(whole.run_uri)
