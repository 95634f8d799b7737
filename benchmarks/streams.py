"""Tars to batches: the stream that training reads, and webdataset with torch's DataLoader.

Each is opened anew for a run, and timed from where it has become steady.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from webdataset.compat import WebDataset, WebLoader

from benchmarks.decoders import SIZE
from dalle2_train.data.config import DataConfig
from dalle2_train.data.stream.batches import UpsamplerBatch
from dalle2_train.data.stream.order_state import OrderState
from dalle2_train.data.stream.stream import Stream

BATCH, WORKERS = 64, 2
CONFIG = DataConfig(image_size=SIZE, num_workers=WORKERS, cache_megabytes=0)
# Lanes' chunks end together, after so many batches: a run begins and ends there.
_TURN = CONFIG.block_size * CONFIG.num_lanes // BATCH
# open_clip's, of OpenAI's CLIP.
_MEAN, _STD = torch.tensor([0.4815, 0.4578, 0.4082]), torch.tensor([0.2686, 0.2613, 0.2758])


def ours(uri: str) -> float:
    """Samples a second of the stream that training reads."""
    stream = Stream(uri, CONFIG, seed=0, global_batch_size=BATCH, batch_type=UpsamplerBatch)
    speed = samples_per_second(iter(stream), BATCH, warm_up=2 * _TURN, num_batches=4 * _TURN)
    stream.close()
    return speed


def webdataset_and_pillow(tars: Sequence[str]) -> float:
    """Samples a second of webdataset and torch's DataLoader in open_clip's way, which decodes every pixel."""
    samples = (
        WebDataset(list(tars), resampled=True, shardshuffle=False)
        .shuffle(1000, initial=100)
        .decode("pilrgb")
        .rename(image="jpg;png;jpeg;webp", text="txt")
        .map_dict(image=open_clip_transform)
        .to_tuple("image", "text")
        .batched(BATCH, partial=False)
    )
    loader = WebLoader(samples, batch_size=None, num_workers=WORKERS)
    return samples_per_second(iter(loader), BATCH, warm_up=8, num_batches=16)


def open_clip_transform(image: Image.Image) -> torch.Tensor:
    """Resize, CenterCrop, ToTensor and Normalize by Pillow's and torch's own calls. (3, S, S) float32."""
    short = min(image.size)
    width, height = (int(SIZE * length / short) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    image = image.crop((left, top, left + SIZE, top + SIZE))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)  # (3, S, S)
    return pixels.sub_(_MEAN[:, None, None]).div_(_STD[:, None, None])


def resume(uri: str, num_workers: int, state: OrderState) -> float:
    """Seconds from nothing to the first batch of a stream that goes on at `state`."""
    config = replace(CONFIG, num_workers=num_workers)
    start = time.perf_counter()
    stream = Stream(uri, config, seed=0, global_batch_size=BATCH, batch_type=UpsamplerBatch, state=state)
    next(iter(stream))
    seconds = time.perf_counter() - start
    stream.close()
    return seconds


def middle(uri: str, count: int) -> OrderState:
    """Where a stream stands after half an epoch."""
    stream = Stream(uri, CONFIG, seed=0, global_batch_size=BATCH, batch_type=UpsamplerBatch)
    start, cursor = stream.state(), count // 2 // CONFIG.num_lanes
    cursors = {lane: (cursor,) for lane in start.cursors}
    return OrderState(count // 2 // BATCH, cursors, start.identity, start.skipped)


def samples_per_second(batches: Iterator[Any], batch_size: int, warm_up: int, num_batches: int) -> float:
    """Of batches that are made without end, after the first `warm_up` of them."""
    for _ in islice(batches, warm_up):
        pass
    start = time.perf_counter()
    for _ in islice(batches, num_batches):
        pass
    return num_batches * batch_size / (time.perf_counter() - start)
