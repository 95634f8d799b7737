"""Settings under which the tiny recipes train in a second beside `tiny_clip`'s CLIP: family → overrides."""

_TRAINING = ("training.global_batch_size=8", "training.num_threads=1", "optimizer.schedule=constant",
             "data.block_size=4")  # fmt: skip
SILENT = "training.sample_every_steps=0"
AR_PRIOR = (*_TRAINING, "model.network.embed_dim=32", "model.network.num_heads=1", "model.network.depth=1",
            "model.network.num_text_tokens=8", "model.network.num_dims=6", "model.network.num_buckets=8",
            "model.network.num_dot_buckets=4", "model.network.dropout=0", "data.num_lanes=4")  # fmt: skip
DECODER = (*_TRAINING, "model.network.embed_dim=32", "model.network.image_size=8", "data.image_size=8",
           "model.network.channels=[8,16]", "model.network.attention=[false,true]", "model.network.head_dim=8",
           "model.network.time_dim=16")  # fmt: skip
DIRECT = (*_TRAINING, "model.network.text_encoder.context_length=8", "model.network.text_encoder.width=32",
          "model.network.text_encoder.num_heads=2", "model.network.num_heads=2", "model.network.depth=1")  # fmt: skip
UPSAMPLER = (
    "model.network.low_size=8",
    "model.network.high_size=16",
    "model.network.channels=[32, 32]",
    "data.image_size=16",
    "data.block_size=4",
    "training.global_batch_size=8",
    "training.log_every_steps=2",
    "training.num_threads=1",
    "sampling.num_samples=2",
    "sampling.num_steps=2",
)
