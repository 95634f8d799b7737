"""The endless stream of batches that training consumes: the same global batches for every number of ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from dalle2_train import seeding
from dalle2_train.data.batches import Batch, BatchType, collate
from dalle2_train.data.config import DataConfig
from dalle2_train.data.decoded import Decoded
from dalle2_train.data.index import open_set
from dalle2_train.data.manifest import ShardManifest
from dalle2_train.data.order import Order, OrderState
from dalle2_train.data.pool import SamplePool
from dalle2_train.data.reader import RawSample
from dalle2_train.data.selection import Selection
from dalle2_train.errors import InputError

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]
_MAX_SKIPPED_IN_A_ROW = 100


class Stream:
    """Iterates (batch, state after it), forever. `state` continues where another stream, of any world size, stood.

    Raises InputError for sizes that don't divide, for embeddings that belong to other shards, and for a state of
    other data. A damaged sample is passed over by its lane and logged; unreachable storage raises OSError.
    """

    # More parameters than we like: each is another room's to give (recipe, launcher, encoder, checkpoint).
    def __init__(
        self,
        uri: str,
        config: DataConfig,
        *,
        seed: int,
        global_batch_size: int,
        batch_type: BatchType,
        rank: int = 0,
        world_size: int = 1,
        tokenize: Tokenize | None = None,
        embeddings: str | None = None,
        state: OrderState | Mapping[str, Any] | None = None,
    ) -> None:
        _check_sizes(config, global_batch_size, rank, world_size)
        if "token_ids" in batch_type._fields and tokenize is None:
            raise InputError(f"{batch_type.__name__} needs tokenize")
        shards = open_set(uri)
        self.manifest = shards.manifest
        if "image" in batch_type._fields and self.manifest.embeddings is not None:
            raise InputError(
                f"{uri} holds embeddings and no pictures; give the shards with the pictures as the data"
            )
        self.config, self.batch_type, self.tokenize = config, batch_type, tokenize
        self.global_batch_size = global_batch_size
        self.samples = SamplePool(
            shards,
            split=config.split,
            filters=config.filters,
            image_size=config.image_size if "image" in batch_type._fields else None,
            embeddings=(embeddings or uri) if "image_embed" in batch_type._fields else None,
            cache_bytes=config.cache_megabytes << 20,
        )
        self.order = Order(len(self.samples), config.num_lanes, config.block_size, seed, config.shuffle)
        self.identity = _identity(self.manifest, self.samples.selection, self.order)
        if state is not None and not isinstance(state, OrderState):
            state = OrderState.from_json(state)
        self.step = state.step if state else 0
        self.lanes = self._lanes(range(rank, config.num_lanes, world_size), state)

    def _lanes(self, numbers: range, state: OrderState | None) -> list[_Lane]:
        if state is None:
            return [_Lane(lane, self.order, self.samples) for lane in numbers]
        if state.identity != self.identity:
            raise InputError(
                "the checkpoint's order is of other data (or split, filters, scores, opt-out list), seed or lanes; "
                "give what it began with"
            )
        missing = [lane for lane in numbers if lane not in state.cursors]
        if missing:
            raise InputError(f"the order state lacks lanes {missing}: merge the states of all ranks first")
        return [
            _Lane(lane, self.order, self.samples, state.cursors[lane], state.skipped.get(lane, 0))
            for lane in numbers
        ]

    def state(self) -> OrderState:
        """Where this rank stands, after the batches that it has handed out."""
        cursors = {lane.number: lane.cursor for lane in self.lanes}
        return OrderState(
            self.step, cursors, self.identity, {lane.number: lane.skipped for lane in self.lanes}
        )

    def __iter__(self) -> Iterator[tuple[Batch, OrderState]]:
        while True:
            index, samples = [], []
            for turn in range(self.global_batch_size // self.config.num_lanes):
                for lane in self.lanes:
                    place = turn * self.config.num_lanes + lane.number
                    index.append(self.step * self.global_batch_size + place)
                    samples.append(lane.take())
            self._tokenize(samples)
            self.step += 1
            yield collate(self.batch_type, index, samples), self.state()

    def _tokenize(self, samples: list[Decoded]) -> None:
        new = [sample for sample in samples if sample.tokens is None]
        if self.tokenize is None or "token_ids" not in self.batch_type._fields or not new:
            return
        token_ids, mask = self.tokenize([sample.caption for sample in new])  # (B, L), (B, L)
        for sample, ids, seen in zip(new, token_ids, mask, strict=True):
            sample.tokens = (ids.clone(), seen.clone())


class _Lane:
    """One lane: a cursor into its own order, and the chunk that it stands in."""

    def __init__(
        self, number: int, order: Order, samples: SamplePool, cursor: int = 0, skipped: int = 0
    ) -> None:
        self.number, self.order, self.samples = number, order, samples
        self.cursor, self.skipped = cursor, skipped
        self._chunk = -1
        self._ids: list[int] = []
        self._raw: dict[int, RawSample] = {}

    def take(self) -> Decoded:
        """The next sample that is whole."""
        for _ in range(_MAX_SKIPPED_IN_A_ROW):
            chunk, place = divmod(self.cursor, self.order.block_size)
            if chunk != self._chunk:
                self._ids = self.order.chunk(self.number, chunk).tolist()
                self._raw = self.samples.fetch(self._ids[place:])
                self._chunk = chunk
            key = seeding.key(self.order.seed, "sample", self.number, self.cursor)
            sample = self.samples.decoded(self._ids[place], self._raw, key)
            self.cursor += 1
            if sample is not None:
                return sample
            self.skipped += 1
        raise InputError(
            f"{_MAX_SKIPPED_IN_A_ROW} damaged samples in a row; run `shards check` and repair the set"
        )


def _identity(manifest: ShardManifest, selection: Selection, order: Order) -> str:
    parts = (
        manifest.digest,
        selection.digest,
        order.num_lanes,
        order.block_size,
        order.seed,
        order.shuffle,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _check_sizes(config: DataConfig, global_batch_size: int, rank: int, world_size: int) -> None:
    lanes = config.num_lanes
    if not 0 <= rank < world_size or lanes % world_size:
        raise InputError(
            f"{world_size} workers do not divide num_lanes={lanes}; set data.num_lanes to a multiple"
        )
    if global_batch_size % lanes:
        raise InputError(
            f"num_lanes={lanes} does not divide global_batch_size={global_batch_size}; change one of them"
        )
