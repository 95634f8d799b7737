"""Checks every set of a folder, or streams an epoch of it, and says in JSON what came of it and the peak memory."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from dalle2_train.data.check.doctor import check
from dalle2_train.data.config import DataConfig
from dalle2_train.data.faults import Fault
from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.data.stream.stream import Stream

_CONFIG = DataConfig(image_size=8, num_lanes=1, block_size=4, cache_megabytes=0)


def checked(uri: str) -> dict[str, Any]:
    report = check(uri, progress=lambda done, total: None)
    return {"faults": [(fault.shard, fault.key, fault.kind) for fault in report.faults]}


def streamed(uri: str) -> dict[str, Any]:
    """One epoch, sample by sample, as training sees it."""
    captions: list[str] = []
    met: list[Fault] = []

    def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        captions.extend(texts)
        return torch.zeros(len(texts), 1, dtype=torch.long), torch.ones(len(texts), 1, dtype=torch.bool)

    stream = Stream(
        uri,
        _CONFIG,
        seed=0,
        global_batch_size=1,
        batch_type=ClipBatch,
        tokenize=tokenize,
        on_fault=met.append,
    )
    (ledger,) = stream.ledger.values()
    delivered = []
    for batch, state in stream:
        if sum(state.delivered) + sum(state.quarantined) > ledger.kept:  # the first sample of the next epoch
            break
        assert batch.image.shape == (1, 3, 8, 8)
        delivered.append(captions[len(delivered)])
    stream.close()
    return {
        "expected": ledger.expected,
        "delivered": delivered,
        "filtered": sum(ledger.filtered.values()),
        "known": sum(ledger.faulty.values()),
        "met": len({fault.key for fault in met}),
    }


def peak() -> int:
    """Bytes. What getrusage tells would count the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def main(what: str, folder: str) -> None:
    for number, place in enumerate(sorted(Path(folder).iterdir())):
        if place.is_dir():
            found = (checked if what == "check" else streamed)(str(place))
            print(json.dumps({"number": number, "name": place.name, "peak": peak(), **found}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
