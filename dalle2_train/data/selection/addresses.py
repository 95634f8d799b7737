"""Internet addresses and hosts as they are compared, whichever way they are written.

A host in lower case, in its ASCII form (xn--…), without a port, a trailing dot and `www.`; an address without its
scheme and fragment besides, and with its percent signs resolved.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote

import idna

# Scheme and user are optional. The syntax is RE2's, which Python's `re` shares: it matches every text.
PATTERN = (
    r"^(?:(?:[A-Za-z][A-Za-z0-9+.\-]*:)?[/\\]{2})?(?:[^/?#\\]*@)?"
    r"(?P<host>\[[^\]]*\]|[^/?#:\\]*)(?::[0-9]*)?(?P<rest>[/?\\][^#]*)?"
)


@lru_cache(maxsize=1 << 16)
def normal_host(host: str | None) -> str:
    """A host as it is compared; "" for none."""
    host = unquote(host or "").strip().rstrip(".").lower()
    if not host.isascii():
        with contextlib.suppress(idna.IDNAError):  # on such names resolvers differ: compared as it is written
            host = idna.encode(host, uts46=True).decode("ascii")
    bare = host.removeprefix("www.")
    return bare if "." in bare else host


def normal_address(host: str, rest: str | None) -> str:
    """A `normal_host` and what follows it, as the two are compared."""
    rest = (rest or "/").replace("\\", "/")
    rest = rest if rest.startswith("/") else f"/{rest}"
    return host + (unquote(rest) if "%" in rest else rest)


def with_parents(host: str) -> Iterator[str]:
    """a.b.c, b.c, c; of a host of numbers itself alone."""
    yield host
    parts = host.split(".")
    if not (parts[-1].isdecimal() or host.startswith("[")):
        yield from (".".join(parts[i:]) for i in range(1, len(parts)))


def is_listable(host: str) -> bool:
    """Can a list mean this host? A whole top-level domain is taken for a slip."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host.strip("[]")))
    name, _, top = host.rpartition(".")
    return bool(name) and not top.isdecimal() and re.search(r"[\s,;|\"'<>{}]", host) is None
