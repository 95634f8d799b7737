"""What a training meets first, for statistics of samples that a set does not keep: the same on every rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from dalle2_train.data.stream.batches import BatchType, Tokenize
from dalle2_train.data.stream.stream import Stream
from dalle2_train.launch.job import TrainJob


def first_batches(job: TrainJob, batch_type: BatchType, tokenize: Tokenize | None) -> Iterator[Any]:
    """Whole global batches in the training's own order, without end. The training itself tells of their faults."""
    training = job.recipe.training
    stream = Stream(
        job.data,
        replace(job.recipe.data, num_workers=0, prefetch_batches=0),
        seed=training.seed,
        global_batch_size=training.global_batch_size,
        batch_type=batch_type,
        tokenize=tokenize,
        embeddings=job.embeddings,
        on_fault=lambda fault: None,
    )
    with contextlib.closing(stream):
        for batch, _ in stream:
            yield batch
