"""Which split a name belongs to: a hash of the name, so that it never depends on what else is in the set."""

from __future__ import annotations

import hashlib

TRAIN, VALIDATION, COMPOSITIONAL = "train", "validation", "compositional"
VALIDATION_SHARE = 0.10
COMPOSITIONAL_SHARE = 0.20
"""Of the names that are not for validation."""


def draw(purpose: str, *names: str) -> float:
    """A number in [0, 1) that depends on `purpose` and `names` only."""
    digest = hashlib.blake2b("\0".join((purpose, *names)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def split_of_name(name: str, style: str, styles: tuple[str, ...]) -> str:
    """The split of the picture of `name` in `style`.

    Validation names appear in training in no style. Of a compositional name one style, drawn by hash, is held
    out, while the others are trained on.
    """
    if draw("validation", name) < VALIDATION_SHARE:
        return VALIDATION
    if draw("compositional", name) < COMPOSITIONAL_SHARE:
        held_out = styles[int(draw("held out style", name) * len(styles))]
        return COMPOSITIONAL if style == held_out else TRAIN
    return TRAIN
