"""Proves an exported upsampler: a fresh process loads it and has to compute our outputs and our schedule.

Legend: H h sides of the large and the small pictures.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dalle2_train import storage
from dalle2_train.errors import RefusedError
from dalle2_train.export.afresh import run_afresh
from dalle2_train.generation.unclip import Part
from dalle2_train.networks.upsampler import Upsampler, enlarge

NETWORKS = ("super_res_first", "super_res_last")
TOLERANCE = 1e-9
"""Largest difference of an output, both computed in float64."""
_SCHEDULE_TOLERANCE = 1e-6  # theirs is float32

_SCRIPT = Path(__file__).with_name("run_upsampler_with_diffusers.py")


def prove_upsampler(part: Part[Upsampler], folder: Path) -> dict[str, float]:
    """Largest differences of each network's outputs, at the ends and in the middle of the schedule, and of ᾱ.

    Errors: RefusedError when the folder does not load in a fresh process, or when one of them is too large.
    """
    x_t, t, low_res = _questions(part)
    x = torch.cat([x_t, low_res], dim=1)  # (3, 6, H, H)
    theirs = _compute_afresh(folder, {"t": t, "x": x})
    found = {
        name: _largest(theirs[name] - _in_float64(network, x_t, t, low_res))
        for name, network in networks_of(part).items()
    }
    found["alphas_cumprod"] = _largest(theirs["alphas_cumprod"] - part.schedule.alphas_cumprod)
    allowed = dict.fromkeys(NETWORKS, TOLERANCE) | {"alphas_cumprod": _SCHEDULE_TOLERANCE}
    if wrong := [f"{name} differs by {found[name]:.2g}" for name in found if found[name] > allowed[name]]:
        raise RefusedError(
            f"the exported upsampler computes something else: {', '.join(wrong)}; nothing was written"
        )
    return found


def networks_of(part: Part[Upsampler]) -> dict[str, Upsampler]:
    """Folder → the network in it: that of all steps but the last, and that of the last."""
    return dict(zip(NETWORKS, (part.network, part.last or part.network), strict=True))


def _questions(part: Part[Upsampler]) -> tuple[Tensor, Tensor, Tensor]:
    """(x_t (3, 3, H, H), t (3,), the enlarged small pictures (3, 3, H, H)), in float64."""
    config, generator = part.network.config, torch.Generator().manual_seed(0)
    num_steps = part.schedule.num_steps
    x_t = torch.randn(3, 3, config.high_size, config.high_size, dtype=torch.float64, generator=generator)
    small = torch.rand(3, 3, config.low_size, config.low_size, dtype=torch.float64, generator=generator)
    t = torch.tensor([0, num_steps // 2, num_steps - 1])
    return x_t, t, enlarge(small * 2 - 1, config.high_size)


@torch.inference_mode()
def _in_float64(network: Upsampler, x_t: Tensor, t: Tensor, low_res: Tensor) -> Tensor:
    widened = Upsampler(network.config).double().eval()
    widened.load_state_dict(network.state_dict())
    return widened(x_t, t, low_res)


def _largest(difference: Tensor) -> float:
    # NaN would pass every comparison.
    return float(difference.abs().nan_to_num(nan=1.0).max())


def _compute_afresh(folder: Path, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a process computes that knows only the folder."""
    with storage.local_staging() as scratch:
        asked, answered = scratch / "given.safetensors", scratch / "found.safetensors"
        save_file({name: value.contiguous() for name, value in given.items()}, asked)
        run_afresh(_SCRIPT, folder, asked, answered)
        return load_file(answered)
