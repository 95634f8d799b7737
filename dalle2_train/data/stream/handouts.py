"""Makes batches of a rank's lanes, one after another, each with where the stream stands after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from dalle2_train.data.config import DataConfig
from dalle2_train.data.decoded import Decoded
from dalle2_train.data.embeddings.source import EmbeddingSource
from dalle2_train.data.faults import Fault
from dalle2_train.data.stream.batches import Batch, BatchType, Tokenize, collate
from dalle2_train.data.stream.lane import Lane, Track
from dalle2_train.data.stream.mixture import Mixture
from dalle2_train.data.stream.order_state import OrderState
from dalle2_train.data.stream.rows import RowTrack, gather
from dalle2_train.data.stream.source import Source
from dalle2_train.data.stream.workers import Workers


class Handout(NamedTuple):
    """What a step of training takes."""

    batch: Batch
    state: OrderState
    """After the batch."""
    faults: list[Fault]
    """Of the samples that were passed over for it."""


@dataclass(frozen=True)
class BatchMaker:
    """What stays the same from batch to batch."""

    sources: tuple[Source, ...]
    mixture: Mixture
    config: DataConfig
    seed: int
    global_batch_size: int
    batch_type: BatchType
    tokenize: Tokenize | None

    def handouts(self, state: OrderState, workers: Workers) -> Iterator[Handout]:
        """The batches of the lanes in `state`, from there on, without end."""
        if (vectors := self._vectors_alone()) is not None:
            yield from self._of_rows(vectors, state)
        lanes = [self._lane(number, state, workers) for number in sorted(state.cursors)]
        step = state.step
        while True:
            index, samples, faults = [], [], []
            for turn in range(self.global_batch_size // self.config.num_lanes):
                for lane in lanes:
                    place = turn * self.config.num_lanes + lane.number
                    index.append(step * self.global_batch_size + place)
                    source = self.mixture.source_of(self.seed, index[-1])
                    samples.append(lane.tracks[source].take(faults))
            self._add_tokens(samples)
            step += 1
            batch = _pinned(collate(self.batch_type, index, samples))
            yield Handout(batch, _state(step, state.identity, lanes), faults)

    def _vectors_alone(self) -> EmbeddingSource | None:
        """What a batch is gathered of where it needs no decoding, and no worker is asked for."""
        if len(self.sources) != 1 or self.config.num_workers or self.sources[0].loader.pictures is not None:
            return None
        return self.sources[0].loader.vectors

    def _of_rows(self, vectors: EmbeddingSource, state: OrderState) -> Iterator[Handout]:
        """The same batches as of samples taken one by one."""
        lanes = {
            number: RowTrack(number, self.sources[0], vectors, *state.cursors[number], *state.skipped[number])
            for number in sorted(state.cursors)
        }
        turns = np.arange(self.global_batch_size // self.config.num_lanes, dtype=np.int64)[:, None]
        places = turns * self.config.num_lanes + np.array(list(lanes))  # (turns, L)
        step = state.step
        while True:
            faults: list[Fault] = []
            pieces = [lane.take(len(turns), faults) for lane in lanes.values()]
            index = (step * self.global_batch_size + places).reshape(-1)
            batch = _pinned(gather(self.batch_type, index, pieces, vectors.reader.dtype, self.tokenize))
            step += 1
            cursors = {number: (lane.cursor,) for number, lane in lanes.items()}
            skipped = {number: (lane.skipped,) for number, lane in lanes.items()}
            yield Handout(batch, OrderState(step, cursors, state.identity, skipped), faults)

    def _lane(self, number: int, state: OrderState, workers: Workers) -> Lane:
        num_ahead = self._num_ahead(len(state.cursors))
        places = zip(self.sources, state.cursors[number], state.skipped[number], strict=True)
        return Lane(number, [Track(number, source, workers, num_ahead, *place) for source, *place in places])

    def _num_ahead(self, num_lanes: int) -> int:
        """Chunks beside its own that a lane asks workers for: enough for the batches ahead, and for no idle worker."""
        config = self.config
        if not config.num_workers:
            return 0
        samples = config.prefetch_batches * self.global_batch_size // config.num_lanes
        return max(1, -(-samples // config.block_size), -(-2 * config.num_workers // num_lanes))

    def _add_tokens(self, samples: list[Decoded]) -> None:
        new = [sample for sample in samples if sample.tokens is None]
        if self.tokenize is None or "token_ids" not in self.batch_type._fields or not new:
            return
        token_ids, mask = self.tokenize([sample.caption for sample in new])  # (B, L), (B, L)
        for sample, ids, seen in zip(new, token_ids.numpy(), mask.numpy(), strict=True):
            sample.tokens = (ids.copy(), seen.copy())  # alone: a sample is kept longer than its batch


def _state(step: int, identity: str, lanes: Sequence[Lane]) -> OrderState:
    cursors = {lane.number: lane.cursors for lane in lanes}
    return OrderState(step, cursors, identity, {lane.number: lane.skipped for lane in lanes})


def _pinned(batch: Batch) -> Batch:
    """In memory that a GPU copies from while it computes, where there is one."""
    return type(batch)(*(value.pin_memory() for value in batch)) if torch.cuda.is_available() else batch
