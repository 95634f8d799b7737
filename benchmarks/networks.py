"""How fast are the networks? Ours beside diffusers', with equal weights, in the setting in which both are fastest here.

Forward and backward of prior, decoder and upsampler, and whole pictures from text, all compiled, in bf16 over float32
weights, pictures channels last. Nothing else may run meanwhile. The first run compiles for minutes; what it compiled
is kept in --folder, and the next one begins at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Company, Promise, alternate, circumstances, table
from benchmarks.pairs import BATCH, Contender, pairs
from dalle2_train import storage
from dalle2_train.parallel.precision import attention_kernel

STEPS_A_ROUND = 3
# In float32, of the largest value. The first of few sampling steps magnifies rounding thousands of times, see
# export/proof.py, where pictures are compared in float64.
TOLERANCE, PICTURE_TOLERANCE = 1e-4, 1e-2


def main() -> int:
    """Prints a table and writes the JSON; 1 where a promise is not kept."""
    args = _arguments()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(args.folder) / "compiled")
    company = Company()
    contenders, again = {}, pairs()
    for name, (ours, theirs) in pairs().items():
        _check_equal(name, ours.forward, theirs.forward, tolerance=TOLERANCE)
        # Ours always takes the plain attention on CPUs. Of theirs whichever is faster counts; networks of their own,
        # for what was compiled with one kernel keeps it.
        fused = again[name][1]
        for label, contender, attention in (
            (f"{name}, ours", ours, plain_attention),
            (f"{name}, diffusers", theirs, plain_attention),
            (f"{name}, diffusers, fused", fused, nullcontext),
        ):
            _prepare(contender.modules, args.eager)
            contenders[label] = partial(milliseconds, contender, attention)
    measured = alternate(_warm(contenders), "ms", args.rounds)
    measured |= alternate(_warm(_pictures(Path(args.folder), args.eager)), "s", args.rounds)
    what = [*BATCH, "pictures"]
    promises = [
        Promise(
            f"{name}, diffusers / ours",
            min(one.median for label, one in measured.items() if label.startswith(f"{name}, diffusers"))
            / measured[f"{name}, ours"].median,
            least=1,
        )
        for name in what
    ]
    found = {
        **circumstances("make bench-networks"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "compiled": not args.eager,
        "others_share_of_cores": round(company.share(), 3),
        "batch": BATCH,
        "measured": {name: one.to_json() for name, one in measured.items()},
        "promises": {promise.name: promise.to_json() for promise in promises},
    }
    storage.publish_json(args.to, found)
    print(table(measured, promises))
    return 0 if all(promise.kept for promise in promises) else 1


def plain_attention() -> AbstractContextManager[Any]:
    """torch's attention in several steps rather than in one."""
    return attention_kernel("cpu")


def milliseconds(contender: Contender, attention: Callable[[], AbstractContextManager[Any]]) -> float:
    """Of a forward and backward. attention: which kernel it takes."""
    start = time.perf_counter()
    for _ in range(STEPS_A_ROUND):
        with torch.autocast("cpu", dtype=torch.bfloat16), attention():
            loss = contender.forward().float().square().mean()
        loss.backward()
        for module in contender.modules:
            module.zero_grad(set_to_none=True)
    return 1000 * (time.perf_counter() - start) / STEPS_A_ROUND


def _pictures(folder: Path, eager: bool) -> dict[str, Callable[[], float]]:
    from benchmarks import pictures

    unclip, pipeline = pictures.unclip_and_pipeline(folder / "models")
    draws = {"ours": partial(pictures.ours, unclip), "diffusers": pictures.theirs(pipeline)}
    _check_equal("pictures", *draws.values(), tolerance=PICTURE_TOLERANCE)
    _prepare([part.network for part in unclip.parts.values()], eager)
    for part in (unclip.prior, unclip.decoder):
        # What sampling calls at every step, the text being read once.
        if part is not None and not eager:
            network: Any = part.network
            network.predict = torch.compile(network.predict)
    _prepare([pipeline.prior, pipeline.decoder, pipeline.text_proj], eager)
    _prepare([pipeline.super_res_first, pipeline.super_res_last], eager)
    return {f"pictures, {side}": partial(pictures.seconds, draw) for side, draw in draws.items()}


def _prepare(modules: Any, eager: bool) -> None:
    for module in modules:
        module.to(memory_format=torch.channels_last)
        if not eager:
            module.compile()


def _warm(contenders: dict[str, Callable[[], float]]) -> dict[str, Callable[[], float]]:
    """Compiled, and every buffer allocated once."""
    for name, run in contenders.items():
        print(f"warming up {name}: {run():.4g}", file=sys.stderr)
    return contenders


@torch.no_grad()
def _check_equal(
    name: str, ours: Callable[[], torch.Tensor], theirs: Callable[[], torch.Tensor], *, tolerance: float
) -> None:
    one, other = ours(), theirs()
    difference = ((one - other).abs().max() / other.abs().max()).item()
    if not difference <= tolerance:
        raise SystemExit(
            f"{name}: ours and diffusers' differ by {difference:.1e}; these are no equal weights"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", default=f"{tempfile.gettempdir()}/dalle2-train-bench", help="keeps what was compiled"
    )
    parser.add_argument("--to", default="docs/results/networks.json", help="the JSON to be written")
    parser.add_argument("--rounds", type=_rounds, default=8, help="5 at least: medians count")
    parser.add_argument("--eager", action="store_true", help="compile nothing: a look that takes a minute")
    return parser.parse_args()


def _rounds(text: str) -> int:
    if int(text) < 5:
        raise argparse.ArgumentTypeError(f"a median of {text} rounds says little; give 5 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
