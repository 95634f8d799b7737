"""The formats of pictures that are read: the name of a member says which, and its first bytes must agree."""

from __future__ import annotations

from dalle2_train.data.faults import DamagedError

_FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
FORMATS = ("PNG", "JPEG", "WEBP")
"""As Pillow calls them."""
IMAGE_EXTENSIONS = tuple(_FORMATS)
"""Of a sample with several pictures the first of these is its own."""


def check_extension(extension: str, data: bytes) -> None:
    """DamagedError for a picture of another format than its name says; what is no picture is the decoder's affair."""
    found = _format_of(data)
    if found is not None and found != _FORMATS[extension]:
        raise DamagedError("wrong_extension", f"a {found} is named .{extension}")


def _format_of(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    return "WEBP" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None
