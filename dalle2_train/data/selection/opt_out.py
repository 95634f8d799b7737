"""The list of those who do not want to be trained on: addresses, domains with all that lies below them, hashes.

N samples of a shard.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from dalle2_train import storage
from dalle2_train.data.selection.addresses import (
    PATTERN,
    is_listable,
    normal_address,
    normal_host,
    with_parents,
)
from dalle2_train.data.selection.digests import Digests, among, digests
from dalle2_train.data.selection.opt_out_file import entries
from dalle2_train.data.shards.shard_index import ShardIndex
from dalle2_train.errors import InputError

_HASH = re.compile(r"[0-9A-Fa-f]{16,128}|-?[0-9]{6,20}")  # hexadecimal, or LAION's 64-bit number
_NUM_SHOWN = 20
pc: Any = pyarrow.compute  # its functions come into being when it is imported


@dataclass(frozen=True)
class OptOutList:
    """What a list names. Digests are sorted."""

    addresses: Digests
    hosts: frozenset[str]
    """Of the addresses."""
    domains: frozenset[str]
    hashes: Digests
    sha256: str
    """Of the list's file."""

    @property
    def asks_for(self) -> tuple[str, ...]:
        """The index's columns that it is compared with."""
        url = ("url",) if len(self.addresses) or self.domains else ()
        return url + (("hash",) if len(self.hashes) else ())

    def names(self, index: ShardIndex) -> NDArray[np.bool_]:
        """(N,) which samples are on the list."""
        found = np.zeros(len(index), dtype=bool)
        if "url" in self.asks_for:
            found |= self._names_url(index.table.column("url"))
        if len(self.hashes):
            column = index.table.column("hash")
            told = column.is_valid().to_numpy()
            found[told] |= among(digests(pc.utf8_lower(column.drop_null()).to_pylist()), self.hashes)
        return found

    def _names_url(self, urls: pa.ChunkedArray) -> NDArray[np.bool_]:
        parts = pc.extract_regex(pc.utf8_trim_whitespace(urls.combine_chunks()), PATTERN)
        written = pc.struct_field(parts, "host").dictionary_encode()
        hosts = [normal_host(host) for host in written.dictionary.to_pylist()]
        of_host = written.indices.fill_null(len(hosts)).to_numpy(zero_copy_only=False)  # (N,)
        found = np.array([*map(self._is_named, hosts), False])[of_host]
        # An address of a host that the list has none of need not be looked at.
        maybe = np.flatnonzero(np.array([*(host in self.hosts for host in hosts), False])[of_host] & ~found)
        rests = pc.struct_field(parts, "rest").take(pa.array(maybe)).to_pylist()
        texts = [normal_address(hosts[i], rest) for i, rest in zip(of_host[maybe], rests, strict=True)]
        found[maybe] = among(digests(texts), self.addresses)
        return found

    @cached_property
    def _is_named(self) -> Callable[[str], bool]:
        """Is a host, or a domain above it, on the list? The same hosts come in shard after shard."""
        return lru_cache(1 << 16)(lambda host: any(domain in self.domains for domain in with_parents(host)))


def read_list(uri: str) -> OptOutList:
    """The list at `uri`: a text with one entry a line (# begins a comment), .jsonl or .parquet.

    Objects of .jsonl and columns of .parquet are named url, domain or hash (also sha256, md5, phash); a .jsonl may
    hold plain texts too. Missing, empty, or with an entry that is none of the three: InputError.
    """
    data = storage.read_bytes(uri)
    found: dict[str, list[str]] = {"url": [], "domain": [], "hash": []}
    bad = []
    for where, kind, text in entries(uri, data):
        kind, normal = _classify(kind, text.strip())
        if normal is None:
            bad.append(f"{where}: {text[:80]!r}")
        else:
            found[kind].append(normal)
    if bad:
        more = f"\n… and {len(bad) - _NUM_SHOWN} more" if len(bad) > _NUM_SHOWN else ""
        raise InputError(
            f"{uri}: {len(bad)} entries are no address, domain or hash; mend or remove them:\n"
            + "\n".join(bad[:_NUM_SHOWN])
            + more
        )
    if not any(found.values()):
        raise InputError(
            f"{uri}: names no address, domain or hash; fill it, or set data.filters.opt_out=null"
        )
    return OptOutList(
        addresses=np.unique(digests(found["url"])),
        hosts=frozenset(address.partition("/")[0] for address in found["url"]),
        domains=frozenset(found["domain"]),
        hashes=np.unique(digests(found["hash"])),
        sha256=storage.sha256_bytes(data),
    )


def _classify(kind: str | None, text: str) -> tuple[str, str | None]:
    """(kind, the entry as it is compared); None where it is nothing that can be compared."""
    if kind == "hash" or (kind is None and _HASH.fullmatch(text)):
        return "hash", text.lower() or None
    match = re.match(PATTERN, text)
    assert match is not None, "the pattern matches every text"
    host, rest = normal_host(match["host"]).removeprefix("*."), match["rest"]
    has_path = rest not in (None, "/")
    kind = kind or ("url" if has_path else "domain")
    is_mail = "@" in text and "//" not in text
    if is_mail or not is_listable(host) or (kind == "domain" and has_path):
        return kind, None
    return kind, normal_address(host, rest) if kind == "url" else host
