"""The figure of all loss curves of a workflow, a panel per run."""

import io
import json
from collections.abc import Mapping

from dalle2_train import storage
from dalle2_train.checkpoints.layout import losses_uri


def loss_curves(runs: Mapping[str, str], to: str) -> None:
    """Draw the loss of every step of `runs` (title → run URI), faint, and its running mean, into the PNG at `to`."""
    # pyplot would choose a display; a Figure of its own needs none.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(runs), 2.8), layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for panel, (title, run_uri) in zip(panels, runs.items(), strict=True):
        steps, losses = read_losses(run_uri)
        panel.plot(steps, losses, color="#9db4d6", linewidth=0.6)
        panel.plot(steps, running_mean(losses, max(len(losses) // 30, 1)), color="#1f4e9e", linewidth=1.6)
        panel.set(title=title, xlabel="step", yscale="log")
        panel.grid(alpha=0.25, which="both")
    panels[0].set_ylabel("loss")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    storage.publish_bytes(to, picture.getvalue())


def read_losses(run_uri: str) -> tuple[list[int], list[float]]:
    """Steps and losses of a run, those that were no numbers left out."""
    lines = storage.read_bytes(losses_uri(run_uri)).decode().splitlines()
    rows = [row for row in map(json.loads, lines) if row["loss"] is not None and row["loss"] == row["loss"]]
    return [row["step"] for row in rows], [row["loss"] for row in rows]


def running_mean(values: list[float], width: int) -> list[float]:
    """Mean of each value and up to `width` − 1 before it."""
    return [
        sum(values[max(0, i + 1 - width) : i + 1]) / len(values[max(0, i + 1 - width) : i + 1])
        for i in range(len(values))
    ]
