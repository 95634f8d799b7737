"""Bare decoders of JPEGs that are in memory, and how near ours comes to decoding every pixel."""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
import simplejpeg
from PIL import Image

from dalle2_train.data.pictures.decode import decode_image

SIZE = 64
"""Pixels; what is asked for."""

Decoder = Callable[[bytes], np.ndarray]


def by_simplejpeg(data: bytes) -> np.ndarray:
    """The bare decoder at the target's scale: no crop, no resize."""
    return simplejpeg.decode_jpeg(data, min_width=SIZE, min_height=SIZE)


def by_draft(data: bytes) -> np.ndarray:
    """Pillow's scaled decoding."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (SIZE, SIZE))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def by_pillow(data: bytes) -> np.ndarray:
    """Every pixel, then the resize."""
    return np.asarray(Image.open(io.BytesIO(data)).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def in_memory(decode: Callable[[bytes], object], pictures: Sequence[bytes]) -> float:
    """Pictures a second of one process."""
    start = time.perf_counter()
    for data in pictures:
        decode(data)
    return len(pictures) / (time.perf_counter() - start)


@contextmanager
def processes(number: int, pictures: Sequence[bytes]) -> Iterator[Callable[[Decoder], float]]:
    """Pictures a second of so many processes that have the pictures in memory, each a part of them."""
    parts = [list(pictures[first::number]) for first in range(number)]
    pipes = [multiprocessing.Pipe() for _ in parts]
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_serve, args=(theirs, part))
        for (_, theirs), part in zip(pipes, parts, strict=True)
    ]
    for worker in workers:
        worker.start()
    for ours, _ in pipes:
        ours.recv()

    def run(decode: Decoder) -> float:
        start = time.perf_counter()
        for ours, _ in pipes:
            ours.send(decode)
        for ours, _ in pipes:
            ours.recv()
        return len(pictures) / (time.perf_counter() - start)

    try:
        yield run
    finally:
        for (ours, _), worker in zip(pipes, workers, strict=True):
            ours.send(None)
            worker.join()


def _serve(pipe: Connection, pictures: list[bytes]) -> None:
    pipe.send(None)
    while (decode := pipe.recv()) is not None:
        in_memory(decode, pictures)
        pipe.send(None)


def decibels(pictures: Sequence[bytes]) -> np.ndarray:
    """(N,) PSNR of ours against every pixel decoded and the same resize."""
    squares = [
        np.square(decode_image(data, SIZE) - by_pillow(data).astype(float)).mean() for data in pictures
    ]
    return 10 * np.log10(255**2 / np.array(squares))
