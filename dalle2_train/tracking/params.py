"""A resolved recipe as MLflow's flat, short params, without secrets."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from dalle2_train.redaction import redact

# Older servers refuse longer values, newer ones cut them silently.
MAX_VALUE_LENGTH = 250
_SECRET_KEY = re.compile(
    r"(^|[._-])(password|passwd|secret|token|credentials?|(api|access|secret)_?key)$", re.IGNORECASE
)


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings → dotted names and short texts. A list is one value."""
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            # MLflow allows few characters in names.
            flat[re.sub(r"[^\w\-. /:]", "_", name)] = shorten(without_secret(name, value))
    return flat


def without_secret(name: str, value: Any) -> str:
    """`value` as text, without what only its owner may know: passwords by their names, what URIs hold of it."""
    if isinstance(value, str) and value and _SECRET_KEY.search(name):
        return "***"
    return redact(str(value))


def shorten(text: str) -> str:
    """At most MAX_VALUE_LENGTH characters; the end of a longer text is replaced by its digest, so changes show."""
    if len(text) <= MAX_VALUE_LENGTH:
        return text
    digest = f"… sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return text[: MAX_VALUE_LENGTH - len(digest)] + digest
