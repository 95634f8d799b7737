"""Scripts that run in a fresh process, so that an exported folder is all that they know of the models."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from dalle2_train.errors import RefusedError

MINUTES = 60
"""How long a script may take."""


def run_afresh(script: Path, folder: Path, *files: Path) -> None:
    """Runs `script` on the exported `folder`; `files` are what it is given and what it writes, in its own order.

    Errors: RefusedError when it fails, with its last line, or does not finish within MINUTES.
    """
    # -P keeps this package's folder off the script's path.
    command = [sys.executable, "-P", str(script), str(folder), *map(str, files)]
    # The same number of threads: a folder must not be refused for what was set for this process only.
    settings = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    settings |= {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 * MINUTES, env=os.environ | settings
        )
    except subprocess.TimeoutExpired as error:
        raise RefusedError(
            f"diffusers did not finish with the exported folder within {MINUTES:g} minutes"
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RefusedError(f"diffusers cannot load or run the exported folder: {lines[-1]}")
