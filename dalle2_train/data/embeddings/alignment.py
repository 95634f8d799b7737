"""Which row of an embedded set belongs to which sample of the shards: by key, never by position alone.

N samples of a shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from dalle2_train.data.embeddings.layout import part_name
from dalle2_train.data.embeddings.sets import EmbeddingSet
from dalle2_train.data.faults import Fault
from dalle2_train.data.selection.selection import Selection
from dalle2_train.data.shards.manifest import ShardSet
from dalle2_train.errors import InputError

pc: Any = pyarrow.compute  # its functions come into being when it is imported
_NONE, _REPEATED = -1, -2


class Rows(NamedTuple):
    """Where the embeddings of a shard's samples lie."""

    parts: NDArray[np.int32]  # (N,) below zero where there is none
    rows: NDArray[np.int64]  # (N,)


@dataclass(frozen=True)
class Alignment:
    """For every shard the rows of its samples."""

    embeddings: EmbeddingSet
    shards: tuple[int | Rows, ...]
    """The part whose rows are the shard's samples one by one, or where each of them lies."""

    def rows(self, shards: NDArray[np.int64], positions: NDArray[np.int64]) -> Rows:
        """Where the embeddings of the samples at (shard, position), (N,) each, lie; they must have some."""
        rows = Rows(np.empty(len(shards), np.int32), positions.copy())
        for shard in np.unique(shards):
            found, of_shard = self.shards[shard], shards == shard
            if isinstance(found, int):
                rows.parts[of_shard] = found
            else:
                rows.parts[of_shard] = found.parts[positions[of_shard]]
                rows.rows[of_shard] = found.rows[positions[of_shard]]
        return rows

    def unpaired(self, shard: int) -> Iterator[tuple[int, str]]:
        """(position, kind of fault) of a shard's samples that have no embedding, or more than one."""
        found = self.shards[shard]
        if isinstance(found, Rows):
            for position in np.flatnonzero(found.parts < 0):
                yield int(position), "duplicate" if found.parts[position] == _REPEATED else "no_embedding"


def align(shards: ShardSet, found: EmbeddingSet) -> Alignment:
    """Pairs `shards` with embeddings. Those of other shards: InputError that names the keys."""
    if shards is found:
        return Alignment(found, tuple(range(len(found))))
    if found.embeddings.of is None:
        return _by_key(shards, found)
    return _part_by_part(shards, found)


def paired(selection: Selection, alignment: Alignment, shards: ShardSet) -> Selection:
    """The selected samples that have an embedding; all others are faults in its ledger. None left: InputError."""
    positions, faults = [], []
    for number, kept in enumerate(selection.positions):
        unpaired = dict(alignment.unpaired(number))
        lost = [position for position in kept.tolist() if position in unpaired]
        keys, name = shards.index(number).keys, shards.name(number)
        faults += [Fault(name, keys[position], unpaired[position]) for position in lost]
        positions.append(np.setdiff1d(kept, lost).astype(np.int32))
    starts = np.concatenate([[0], np.cumsum([len(kept) for kept in positions])]).astype(np.int64)
    if not starts[-1]:
        raise InputError(f"{alignment.embeddings.home}: no selected sample has an embedding; embed again")
    faulty = Counter(selection.ledger.faulty) + Counter(fault.kind for fault in faults)
    ledger = replace(selection.ledger, kept=int(starts[-1]), faulty=dict(faulty))
    return Selection(tuple(positions), starts, ledger, (*selection.faults, *faults))


def _part_by_part(shards: ShardSet, found: EmbeddingSet) -> Alignment:
    """Of embeddings that say which shard each part was made of."""
    numbers = {part.name: number for number, part in enumerate(found.embeddings.parts)}
    where, remedy = found.home, f"embed {shards.home} again"
    pairs: list[int | Rows] = []
    for i, shard in enumerate(shards.manifest.shards):
        number = numbers.get(part_name(shard.path))
        if number is None:
            raise InputError(f"{where}: has other shards than {shards.home}, none of {shard.path}; {remedy}")
        if found.embeddings.parts[number].source != shard.sha256:
            raise InputError(f"{where}: {shard.name} was made from another {shard.name} than {shards.home} has "
                             f"{_keys_apart(shards, i, found, number)}; {remedy}")  # fmt: skip
        pairs.append(_of_part(shards, i, found, number))
    return Alignment(found, tuple(pairs))


def _of_part(shards: ShardSet, shard: int, found: EmbeddingSet, number: int) -> int | Rows:
    ours, theirs = _keys(shards, shard), _keys(found, number)
    if ours.equals(theirs):
        return number
    rows = _looked_up(ours, theirs)
    return Rows(np.where(rows < 0, rows, number).astype(np.int32), rows)


def _by_key(shards: ShardSet, found: EmbeddingSet) -> Alignment:
    """Of embeddings whose parts are cut otherwise than the shards, as clip-retrieval's are."""
    ours = [_keys(shards, i) for i in range(len(shards))]
    theirs = [_keys(found, i) for i in range(len(found))]
    rows = _looked_up(_joined(ours), _joined(theirs))
    if not (rows >= 0).any():
        raise InputError(f"{found.home}: is wholly misaligned with {shards.home}: {_first(theirs)} are its keys, "
                         f"{_first(ours)} those of the shards; give the embeddings of these shards")  # fmt: skip
    starts = np.cumsum([0, *(len(keys) for keys in theirs)])
    parts = np.where(rows < 0, rows, np.searchsorted(starts, rows, side="right") - 1).astype(np.int32)
    within = np.where(rows < 0, rows, rows - starts[np.maximum(parts, 0)])
    cuts = np.cumsum([len(keys) for keys in ours])[:-1]
    pairs = zip(np.split(parts, cuts), np.split(within, cuts), strict=True)
    return Alignment(found, tuple(Rows(*pair) for pair in pairs))


def _looked_up(ours: pa.Array, theirs: pa.Array) -> NDArray[np.int64]:
    """(N,) where each of our keys stands among theirs; _NONE where it does not, _REPEATED where more than once."""
    rows = (
        pc.index_in(ours, value_set=theirs).fill_null(_NONE).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    counted = pc.value_counts(theirs)
    repeated = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    if len(repeated):
        rows[pc.is_in(ours, value_set=repeated).to_numpy(zero_copy_only=False)] = _REPEATED
    return rows


def _keys(shards: ShardSet, number: int) -> pa.Array:
    return _joined([shards.index(number).table.column("key").cast(pa.large_string())])


def _joined(keys: list[pa.ChunkedArray] | list[pa.Array]) -> pa.Array:
    chunks = [
        chunk for part in keys for chunk in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])
    ]
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())


def _first(keys: list[pa.Array]) -> str:
    return " and ".join(key.as_py() for key in islice((key for part in keys for key in part), 2))


def _keys_apart(shards: ShardSet, shard: int, found: EmbeddingSet, number: int) -> str:
    ours, theirs = shards.index(shard).keys, found.index(number).keys
    odd = next((f"{a} and {b}" for a, b in zip(ours, theirs, strict=False) if a != b), None)
    return f"(keys {odd})" if odd else "(keys are the same, pictures are not)"
