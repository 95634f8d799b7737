"""A set's statistics as one picture: a histogram a number, bars for words, and where the filters send the samples."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from dalle2_train.data.selection.selection import Ledger
from dalle2_train.data.stats.distribution import LONG_TAIL, Distribution
from dalle2_train.data.stats.stats import Stats, Words
from dalle2_train.data.stats.table import number

_COLUMNS = 3
_BLUE, _GREEN, _RED, _GREY = "#3b75af", "#519e3e", "#c44e52", "#777777"
_NUM_BARS = 8
_LONG_NAME = 22


def figure(found: Stats) -> bytes:
    """PNG bytes."""
    panels: list[Callable[[Axes], None]] = [partial(_histogram, one) for one in found.numbers]
    panels += [partial(_bars, one) for one in found.words]
    panels.append(partial(_ledger, found.ledger))
    rows = math.ceil(len(panels) / _COLUMNS)
    drawn = Figure(figsize=(5.2 * _COLUMNS, 3.2 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = list(drawn.subplots(rows, _COLUMNS, squeeze=False).flat)
    for panel, place in zip(panels, axes, strict=False):
        panel(place)
    for place in axes[len(panels) :]:
        place.set_axis_off()
    drawn.suptitle(_heading(found), fontsize=12)
    stream = io.BytesIO()
    drawn.savefig(stream, format="png", dpi=100)
    return stream.getvalue()


def _heading(found: Stats) -> str:
    lines = [_shortened(found.uri, 90), f"{found.num_samples:,} samples in {found.num_shards:,} shards"]
    if found.untold:
        lines.append(f"told by no record: {', '.join(found.untold)}")
    return "\n".join(lines)


def _histogram(one: Distribution, axes: Axes) -> None:
    widths = [high - low for low, high in zip(one.edges, one.edges[1:], strict=False)]
    axes.bar(one.edges[:-1], one.counts, widths, align="edge", color=_BLUE, edgecolor="white", linewidth=0.4)
    if one.edges[0] > 0 and one.edges[-1] / one.edges[0] > LONG_TAIL:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(one.median, color=_RED, linewidth=1.2)
    untold = f" · {one.untold:,} not told" if one.untold else ""
    axes.set_title(f"{_title(one.name)}: median {number(one.median)}{untold}", fontsize=10, loc="left")
    axes.set_xlabel(one.unit, fontsize=9)
    axes.xaxis.set_major_formatter(FuncFormatter(_compact))
    _style(axes, "shards" if one.name == "samples_per_shard" else "samples")


def _bars(words: Words, axes: Axes) -> None:
    shown = dict(list(words.counts.items())[:_NUM_BARS])
    if len(words.counts) > _NUM_BARS:
        shown["others"] = sum(words.counts.values()) - sum(shown.values())
    colours = [_BLUE] * len(shown)
    if words.untold:
        shown["not told"] = words.untold
        colours.append(_GREY)
    _lying_bars(axes, shown, colours)
    axes.set_title(_title(words.name), fontsize=10, loc="left")


def _ledger(ledger: Ledger, axes: Axes) -> None:
    shown = {"kept": ledger.kept, **ledger.filtered, **ledger.faulty}
    colours = [_GREEN] + [_RED] * len(ledger.filtered) + [_GREY] * len(ledger.faulty)
    _lying_bars(axes, shown, colours)
    axes.set_title(
        f"of {ledger.expected:,} expected: kept, filtered, lost to faults", fontsize=10, loc="left"
    )


def _lying_bars(axes: Axes, shown: dict[str, int], colours: list[str]) -> None:
    names = [_shortened(name, _LONG_NAME) for name in shown]
    # At their numbers, for shortened names may be equal.
    bars = axes.barh(range(len(names)), list(shown.values()), color=colours, height=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.bar_label(bars, labels=[f"{count:,}" for count in shown.values()], padding=3, fontsize=8)
    axes.set_ylim(max(len(names), 4) - 0.5, -0.5)
    axes.margins(x=0.2)
    axes.xaxis.set_major_formatter(FuncFormatter(_compact))
    axes.set_xlabel("samples", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _style(axes: Axes, what: str) -> None:
    axes.set_ylabel(what, fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_compact))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)


def _title(name: str) -> str:
    return name.replace("_", " ")


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2) + 1 :]}"


def _compact(value: float, place: Any) -> str:
    """1500000 as 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"
