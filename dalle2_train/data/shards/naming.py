"""How a member of a tar names its sample: by webdataset's rule, without webdataset, which brings torch with it."""

from __future__ import annotations

import re

_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


def key_and_extension(path: str) -> tuple[str, str] | tuple[None, None]:
    """("a/000001", "seg.png") of "a/000001.seg.png"; (None, None) of a name that belongs to no sample."""
    found = _NAME.match(path)
    return (found.group(1), found.group(2)) if found else (None, None)
