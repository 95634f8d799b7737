"""The endless stream of batches that training consumes: the same global batches for every number of ranks."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from dalle2_train.data.config import DataConfig
from dalle2_train.data.faults import Fault, OnFault
from dalle2_train.data.samples.degradation import Degradation
from dalle2_train.data.selection.selection import Ledger
from dalle2_train.data.stream.batches import Batch, BatchType, Tokenize
from dalle2_train.data.stream.handouts import BatchMaker
from dalle2_train.data.stream.mixture import mixture_of
from dalle2_train.data.stream.open_sources import identity, open_sources
from dalle2_train.data.stream.order_state import OrderState, PerLane
from dalle2_train.data.stream.prefetch import ahead
from dalle2_train.data.stream.workers import open_workers
from dalle2_train.errors import InputError

_log = logging.getLogger(__name__)


def log_fault(fault: Fault) -> None:
    """A line in the log."""
    _log.warning("%s: sample %s is passed over: %s", fault.shard, fault.key, fault.reason or fault.kind)


class Stream:
    """Iterates (batch, state after it), forever. `state` continues where another stream, of any world size, stood.

    The batches are made ahead of who takes them; what is not taken yet is in no state, and its faults are not told
    yet: `on_fault` hears of a damaged sample before the batch that would have had it. Iterating anew goes on after
    the last batch that was taken, and ends the iterator before.

    Raises InputError for sizes that don't divide, for a state of other data, and as `open_sources`. Iterating raises
    RefusedError where a lane meets nothing but damage, RuntimeError where a loader worker dies, OSError where storage
    is out of reach.
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
        degradation: Degradation | None = None,
        state: OrderState | Mapping[str, Any] | None = None,
        on_fault: OnFault = log_fault,
    ) -> None:
        _check_sizes(config, global_batch_size, rank, world_size)
        if "token_ids" in batch_type._fields and tokenize is None:
            raise InputError(f"{batch_type.__name__} holds tokens; give tokenize")
        if ("small_image" in batch_type._fields) != (degradation is not None):
            raise InputError(f"{batch_type.__name__} and degradation={degradation}: give both or neither")
        mixture = mixture_of(uri)
        self.config, self.on_fault = config, on_fault
        self.sources = open_sources(mixture, config, seed, batch_type, embeddings, degradation)
        self._maker = BatchMaker(self.sources, mixture, config, seed, global_batch_size, batch_type, tokenize)
        lanes = range(rank, config.num_lanes, world_size)
        self._state = _part(lanes, state, identity(mixture, self.sources, config, seed), len(self.sources))
        self._running: Callable[[], Generator[Any] | None] = lambda: None

    @property
    def ledger(self) -> dict[str, Ledger]:
        """Source → where its samples went before training; the only source of a set has the name ""."""
        return {source.name: source.selection.ledger for source in self.sources}

    @property
    def known_faults(self) -> Iterator[Fault]:
        """What is wrong with the sources before anything is read, as far as their manifests know."""
        return (source.named(fault) for source in self.sources for fault in source.selection.faults)

    @property
    def max_faulty(self) -> float:
        """Share of the samples met that may be faulty before training stops."""
        return self.config.max_faulty

    def state(self) -> OrderState:
        """Where this rank stands, after the batches that it has handed out."""
        return self._state

    def close(self) -> None:
        """End the iterator; no process of it is left."""
        if (running := self._running()) is not None:
            running.close()

    def __iter__(self) -> Iterator[tuple[Batch, OrderState]]:
        self.close()
        iterator = self._run()
        self._running = weakref.ref(iterator)
        return iterator

    def _run(self) -> Generator[tuple[Batch, OrderState]]:
        workers = open_workers([source.loader for source in self.sources], self.config.num_workers)
        handouts = ahead(self._maker.handouts(self._state, workers), self.config.prefetch_batches)
        try:
            for batch, state, faults in handouts:
                for fault in faults:
                    self.on_fault(fault)
                self._state = state
                yield batch, state
        finally:
            # First the workers: the thread waits for them.
            workers.close()
            handouts.close()


def _part(
    lanes: range, state: OrderState | Mapping[str, Any] | None, identity: str, num_sources: int
) -> OrderState:
    """Of `state`, what concerns the lanes of one rank."""
    if state is None:
        nothing: PerLane = {lane: (0,) * num_sources for lane in lanes}
        return OrderState(0, nothing, identity, nothing)
    found = state if isinstance(state, OrderState) else OrderState.from_json(state)
    if found.identity != identity:
        raise InputError(
            "the checkpoint's order is of other data (or split, filters, scores, opt-out list), seed or lanes; "
            "give what it began with"
        )
    missing = [lane for lane in lanes if lane not in found.cursors]
    if missing:
        raise InputError(f"the order state lacks lanes {missing}: merge the states of all ranks first")
    cursors = {lane: found.cursors[lane] for lane in lanes}
    return OrderState(found.step, cursors, identity, {lane: found.skipped[lane] for lane in lanes})


def _check_sizes(config: DataConfig, global_batch_size: int, rank: int, world_size: int) -> None:
    lanes = config.num_lanes
    if not 0 <= rank < world_size:
        raise InputError(f"rank {rank} of {world_size}; give one from 0 to {world_size - 1}")
    if lanes % world_size:
        raise InputError(
            f"{world_size} workers do not divide num_lanes={lanes}; set data.num_lanes to a multiple"
        )
    if global_batch_size % lanes:
        raise InputError(
            f"num_lanes={lanes} does not divide global_batch_size={global_batch_size}; change one of them"
        )
