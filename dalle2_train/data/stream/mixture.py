"""Several data sets in one stream: the sources that `--data` names, and which of them each sample comes from."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate

from dalle2_train import seeding, storage
from dalle2_train.config import build, read_yaml
from dalle2_train.errors import InputError


@dataclass(frozen=True)
class SourceConfig:
    """One set of a mixture."""

    name: str
    """What faults and counts call it."""
    uri: str
    """Folder or pattern of shards; a relative path begins at the mixture's folder."""
    weight: float
    """Its share of the samples, relative to the other weights."""
    embeddings: str | None = None
    """Folder of embedded shards; by default `uri`, where that is embedded."""

    def __post_init__(self) -> None:
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise InputError(
                f"source {self.name!r}: weight is {self.weight}; it must be more than 0, or leave the source out"
            )


@dataclass(frozen=True)
class Mixture:
    """The YAML file's content. Each source has epochs of its own, and is gone through in an order of its own."""

    sources: tuple[SourceConfig, ...]

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if not names:
            raise InputError("a mixture without sources; list at least one")
        if len(set(names)) != len(names) or (len(names) > 1 and "" in names):
            raise InputError(f"sources named {names} cannot be told apart; give each a name of its own")

    def source_of(self, seed: int, index: int) -> int:
        """The source of the sample with the global `index`: a draw of its own for each."""
        if len(self.sources) == 1:
            return 0
        bounds = list(accumulate(source.weight for source in self.sources))
        return bisect_right(bounds[:-1], seeding.key(seed, "mixture", index) / 2**63 * bounds[-1])


def is_mixture(uri: str) -> bool:
    """Is `uri` a mixture's file, and not a set of shards?"""
    return uri.endswith((".yaml", ".yml"))


def mixture_of(uri: str) -> Mixture:
    """The mixture in the file `uri`; a set of shards is a mixture of one, without a name. Other files: InputError."""
    if not is_mixture(uri):
        return Mixture((SourceConfig("", uri, 1.0),))
    place = storage.absolute(uri)
    try:
        text = storage.read_bytes(place).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: not a text file ({error}); give a mixture as YAML") from error
    found = build(Mixture, read_yaml(text, uri), uri)
    folder = place.rpartition("/")[0]
    return Mixture(tuple(_from(folder, source) for source in found.sources))


def sets_of(uri: str) -> tuple[str, ...]:
    """The URIs of the sets behind `uri`: itself, or those of a mixture's sources."""
    return tuple(source.uri for source in mixture_of(uri).sources)


def _from(folder: str, source: SourceConfig) -> SourceConfig:
    embeddings = _absolute(folder, source.embeddings) if source.embeddings else None
    return replace(source, uri=_absolute(folder, source.uri), embeddings=embeddings)


def _absolute(folder: str, uri: str) -> str:
    is_relative = storage.local_path(uri) is not None and not uri.startswith(("/", "~", "file:", "local:"))
    return storage.absolute(storage.join(folder, uri) if is_relative else uri)
