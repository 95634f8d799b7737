"""Raw samples to decoded ones, in training: what a batch type needs of them.

Loader workers run it: nothing here may import torch, whose start costs seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dalle2_train.data.decoded import Decoded
from dalle2_train.data.embeddings.source import add_vectors
from dalle2_train.data.faults import damage_is
from dalle2_train.data.samples.degradation import Degradation
from dalle2_train.data.samples.transforms import Transforms
from dalle2_train.data.shards.members import image_bytes
from dalle2_train.data.shards.reader import RawSample


class Decode(Protocol):
    """Raw → decoded, by workers in other processes: it must survive pickling, and keep nothing from call to call."""

    @property
    def draws(self) -> bool:
        """Whether the key decides anything. If not, a decoded sample may be kept and handed out again."""
        ...

    def __call__(self, raw: RawSample, key: int) -> Decoded:
        """The sample. DamagedError for one that cannot be used.

        key: 63 bits, for whatever is drawn of it (crop, caption): one for each place in the order, which is a
        source's lane and cursor, so that it depends on no rank, worker or batch. The place in the batch comes too
        late: it is known only when the samples before it have turned out to be whole.
        """
        ...


@dataclass(frozen=True)
class DecodeSample:
    """The square of the picture, a caption and the vectors."""

    image_size: int | None
    """Pixels; None: no picture."""
    embeddings: bool
    """Whether the vectors of an embedded set are wanted."""
    transforms: Transforms = Transforms()
    captions: bool = True
    """False where nothing reads them, so that embeddings need none."""
    degradation: Degradation | None = None
    """Where the picture is wanted small and worse too."""

    @property
    def draws(self) -> bool:
        return self.transforms.draws or self.degradation is not None

    def __call__(self, raw: RawSample, key: int) -> Decoded:
        picture = None
        if self.image_size is not None:
            data = image_bytes(raw)
            with damage_is("broken_image"):
                picture = self.transforms.picture(data, self.image_size, key)
        text = self.transforms.caption(raw, key) if self.captions else ""
        found = Decoded(raw["__key__"], text, picture)
        if self.degradation is not None and picture is not None:
            found.small_image = self.degradation(picture, key)
        if self.embeddings:
            add_vectors(found, raw)
        return found
