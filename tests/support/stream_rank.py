"""A rank that only reads: it writes down which samples each step got, and where the stream stands, as training does."""

import json
import logging
import sys
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from uneven import SIZES, numbers_of, open_uneven, write_mixture, write_uneven

from dalle2_train import storage
from dalle2_train.data.stream.order_state import OrderState


def write_sets(folder: Path) -> None:
    """One set of uneven shards with damaged samples among them, and a mixture of it with a small one."""
    large = write_uneven(folder / "set", SIZES[13])
    small = write_uneven(folder / "small", [1, 27, 2], first=1000 * 3)
    write_mixture(folder / "mixture.yaml", {"large": (large, 2.0), "small": (small, 1.0)})
    for number in (4, 50, 101, 176):
        for tar in (folder / "set").glob("*.tar"):
            data = bytearray(tar.read_bytes())
            if (place := data.find(b"number %d\0" % number)) >= 0:
                data[place] ^= 1
                tar.write_bytes(data)


def read_as_rank(
    folder: Path, attempt: int, rank: int, world_size: int, uri: str, num_steps: int, **options: Any
) -> None:
    """Go on from the newest checkpoint in `folder` to `num_steps`.

    options: `workers`, loader workers of the rank; `every`, steps between checkpoints; `seconds`, what a step takes.
    """
    logging.getLogger("dalle2_train").setLevel(logging.ERROR)  # each damaged sample is a line
    state = newest_checkpoint(folder)
    with (
        (folder / f"keys-{attempt}-{rank}.jsonl").open("a", buffering=1) as history,
        closing(open_uneven(uri, rank, world_size, state, num_workers=options["workers"])) as stream,
    ):
        for batch, after in islice(stream, num_steps - stream.state().step):
            time.sleep(options["seconds"])
            history.write(json.dumps([after.step - 1, list(numbers_of(batch).items())]) + "\n")
            if after.step % options["every"] == 0:
                _save(folder, f"{after.step:05d}", after, attempt, rank, world_size)


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The merged state after most steps."""
    found = sorted(folder.glob("checkpoint-*.json"))
    return json.loads(found[-1].read_text()) if found else None


def _save(folder: Path, step: str, state: OrderState, attempt: int, rank: int, world_size: int) -> None:
    """A rank's part; whoever finds that all are there publishes what a checkpoint holds."""
    parts = [folder / f"part-{step}-{attempt}-{other}.json" for other in range(world_size)]
    storage.publish_json(str(parts[rank]), state.to_json())
    if all(part.exists() for part in parts):
        merged = OrderState.merge(OrderState.from_json(json.loads(part.read_text())) for part in parts)
        storage.publish_json(str(folder / f"checkpoint-{step}.json"), merged.to_json())
