"""The table of docs/faults.md, made of the trials on record.

    python tests/faults/report.py

Everything between the two marks in the document is replaced.
"""

import sys
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from campaign import lines_of

from benchmarks.measure import circumstances

FOLDER = Path(__file__).parent
DOCS = FOLDER.parents[1] / "docs" / "faults.md"
BEGIN, END = "<!-- trials -->", "<!-- end of trials -->"
PROMISES = {
    "worker_kill": (
        "SIGKILL of a random worker at a random step: keys and losses of an undisturbed run, bit for bit",
        50,
    ),
    "node_kill": (
        "a node gone, raylet, workers and network: likewise, and no checkpoint left half written",
        20,
    ),
    "driver_kill": (
        "SIGKILL of the driver, the same command again: on from the newest checkpoint, likewise",
        20,
    ),
    "resize": ("1, 2 or 4 ranks in turn: the same keys, losses within 1e-9 in float64", 30),
    "checkpoint_cut": (
        "writing cut at every write, rename, removal and upload: on, nothing half loaded or left over",
        200,
    ),
    "checkpoint_flip": (
        "one bit flipped in any file of a checkpoint: found before loading, the older one taken",
        100,
    ),
    "node_tmp": ("nodes that share no /tmp: every checkpoint has both ranks' parts, and is gone on from", 20),
    "storage_away": ("storage with 10 % errors, with connections reset, or a minute away: no run fails", 30),
    "tracking_away": (
        "MLflow stopped or frozen for a minute: no run fails, no point lost or doubled, steps as long over all of them "
        "and none that waits",
        20,
    ),
    "worker_terminated": ("SIGTERM to a random worker, rank 0 included: at most one step done again", 20),
    "node_drained": ("a node drained before it goes: at most one step done again", 10),
    "worker_frozen": ("a random worker frozen (SIGSTOP): found within its deadline, the run goes on", 20),
    "stream_kill": ("ranks that read a stream killed twice and resized: the same keys", 50),
    "embed_kill": ("`shards embed` killed and given again: the same files, byte for byte", 20),
}
"""Class → what it does and what is promised, and how many trials that takes."""


def table() -> str:
    """A row a class."""
    rows = ["| fault, and what is promised | trials | kept |", "| --- | ---: | ---: |"]
    for name, (promise, count) in PROMISES.items():
        lines = [line for line in lines_of(FOLDER / f"{name}.jsonl") if line["done"]]
        kept = sum(line["kept"] for line in lines)
        rows.append(f"| {promise} (`tests/faults/{name}.py`) | {len(lines)} of {count} | {kept} |")
    return "\n".join(rows)


def where() -> str:
    """On which machine, and when the document was written."""
    machine = circumstances("make faults")["machine"]
    told = f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gb']} GB"
    return f"`make faults`, {date.today().isoformat()}, {told}."


def main() -> None:
    """Writes the document."""
    text = DOCS.read_text()
    before, rest = text.split(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n{table()}\n\n{where()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
