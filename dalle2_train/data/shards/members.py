"""What the members of a raw sample are: its picture and its caption, or what is wrong with them."""

from __future__ import annotations

from dalle2_train.data.faults import DamagedError, damage_is
from dalle2_train.data.pictures.formats import IMAGE_EXTENSIONS, check_extension
from dalle2_train.data.shards.reader import RawSample
from dalle2_train.data.values import decode_record, decode_text


def image_bytes(raw: RawSample) -> bytes:
    """The picture of a raw sample. DamagedError for a damaged sample, or one without picture."""
    check_whole(raw)
    for extension in IMAGE_EXTENSIONS:
        if extension in raw:
            check_extension(extension, raw[extension])
            return raw[extension]
    raise DamagedError("no_image", "it has no picture")


def caption(raw: RawSample) -> str:
    """The caption of a raw sample. DamagedError for a damaged sample, or one without caption."""
    check_whole(raw)
    if "txt" not in raw:
        raise DamagedError("no_caption", "it has no caption")
    with damage_is("broken_caption"):
        return decode_text(raw["txt"])


def captions(raw: RawSample, source: str = "txt") -> list[str]:
    """All captions of a raw sample, at least one. DamagedError for a damaged sample, or one without caption.

    source: `txt`, or `json.FIELD`, a field of the record that holds a text or a list of texts.
    """
    if source == "txt":
        return [caption(raw)]
    check_whole(raw)
    with damage_is("broken_record"):
        found = decode_record(raw.get("json", b"{}")).get(source.removeprefix("json."))
    if not found:
        raise DamagedError("no_caption", f"its record has nothing in {source!r}")
    texts = found if isinstance(found, list) else [found]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise DamagedError("broken_caption", f"its {source!r} is neither a text nor a list of texts")
    return [text.strip() for text in texts]


def check_whole(raw: RawSample) -> None:
    """DamagedError for a sample that its reader found damaged."""
    if (error := raw.get("__error__")) is not None:
        raise DamagedError(error if error in ("missing", "truncated", "damaged") else "damaged", error)
