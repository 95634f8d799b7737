"""Calls img2dataset, which lives in an environment of its own, and hears from the statistics that it writes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Container, Iterator, Sequence
from typing import IO, Any

from dalle2_train import storage
from dalle2_train.data.progress import Progress
from dalle2_train.errors import InputError

RESERVED = {
    *("key", "caption", "url", "width", "height", "original_width", "original_height", "status"),
    *("error_message", "exif", "md5", "sha256", "sha512"),
}
"""Columns that it writes itself."""
_INSTALL = (
    "install it in an environment of its own: python -m venv ~/img2dataset && ~/img2dataset/bin/pip install "
    "img2dataset, then set IMG2DATASET=~/img2dataset/bin/img2dataset or put that folder on the PATH"
)
_LOOK_SECONDS = 2.0
_TERMINATE_SECONDS = 10.0
_NUM_LAST_WORDS = 12


def find_program() -> str:
    """The console script that $IMG2DATASET names, or the PATH has. None: InputError that says how to get it."""
    named = os.environ.get("IMG2DATASET")
    if named:
        found = shutil.which(os.path.expanduser(named))
        if found is None:
            raise InputError(f"IMG2DATASET={named}: no such program that may be run; {_INSTALL}")
        return os.path.abspath(found)
    if (found := shutil.which("img2dataset")) is None:
        raise InputError(f"parquet: sources are fetched by img2dataset, which is not installed; {_INSTALL}")
    return os.path.abspath(found)


def arguments(
    *, url_list: str, to: str, url: str, caption: str, others: Sequence[str], image_size: int
) -> list[str]:
    """Its arguments: pictures as JPEG with a shorter side of at most `image_size`, 10,000 addresses a shard."""
    values: dict[str, Any] = {
        "url_list": url_list,
        "input_format": "parquet",
        "url_col": url,
        "caption_col": caption,
        "save_additional_columns": list(others) or None,
        "output_folder": storage.absolute(to),
        "output_format": "webdataset",
        "number_sample_per_shard": 10_000,
        "image_size": image_size,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "encode_format": "jpg",
        "encode_quality": 95,
        "compute_hash": "sha256",
        "incremental_mode": "incremental",
        "processes_count": os.cpu_count() or 1,
        "thread_count": 64,
        "timeout": 10,
        "retries": 2,
        "enable_wandb": False,
    }
    # It reads values as Python literals: a bare 007.parquet would become a number.
    return [f"--{name}={_literal(value)}" for name, value in values.items() if value is not None]


def run(program: str, options: Sequence[str], to: str, num_rows: int, progress: Progress) -> None:
    """Runs it to its end. InputError when it fails, or ends before all rows were tried; run again, it goes on."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            process = subprocess.Popen(
                [program, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise InputError(f"{program}: cannot be run ({error}); {_INSTALL}") from error
        try:
            done = _watch(process, to, num_rows, progress)
        finally:
            _end(process)
        if process.returncode or done < num_rows:
            raise InputError(
                f"img2dataset ended with code {process.returncode} after {done} of {num_rows} addresses; "
                f"run the same command again to go on. Its last words:\n{_last_words(log)}"
            )


def stats(to: str, known: Container[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file, the statistics in it) of the shards that are written, without the files that are `known`."""
    for file in storage.list_folder(to, "_stats.json"):
        if file not in known:
            with contextlib.suppress(InputError):  # it is just being written
                yield file, storage.read_json(file)


def _literal(value: Any) -> str:
    return repr(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def _environment() -> dict[str, str]:
    """Ours, without what would lead its Python to our packages, and without the news that it fetches."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}


def _watch(process: subprocess.Popen[bytes], to: str, num_rows: int, progress: Progress) -> int:
    """Waits for its end; returns how many rows were tried."""
    counts: dict[str, int] = {}
    while True:
        ended = process.poll() is not None
        new = {file: int(found["count"]) for file, found in stats(to, counts)}
        counts |= new
        if new:
            progress(sum(counts.values()), num_rows)
        if ended:
            return sum(counts.values())
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """No process of it outlives ours, however ours ends short of being killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_TERMINATE_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _last_words(log: IO[str]) -> str:
    log.seek(0)
    return "".join(log.readlines()[-_NUM_LAST_WORDS:]).rstrip()
