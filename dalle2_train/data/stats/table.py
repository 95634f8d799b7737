"""A set's statistics as a table for people."""

from __future__ import annotations

from dalle2_train.data.selection.selection import Ledger
from dalle2_train.data.stats.stats import Stats, Words

_NUM_WORDS = 8


def table(found: Stats) -> str:
    """Lines of text: a row a number, a line for each kind of words, and the ledger."""
    lines = [f"{found.uri}: {found.num_samples:,} samples in {found.num_shards:,} shards"]
    lines += [
        f"of the shards {count:,} {kind}: see `shards check`" for kind, count in found.damaged_shards.items()
    ]
    lines.append(f"{'':<16} {'told':>12} {'min':>10} {'median':>10} {'mean':>10} {'max':>10}")
    for one in found.numbers:
        values = " ".join(f"{number(value):>10}" for value in (one.min, one.median, one.mean, one.max))
        lines.append(f"{one.name:<16} {one.told:>12,} {values}  {one.unit}")
    lines += [_words(words) for words in found.words]
    if found.untold:
        lines.append(f"told by no record: {', '.join(found.untold)}")
    return "\n".join([*lines, *_ledger(found.ledger)])


def number(value: float) -> str:
    """Four digits that count, whole numbers in full."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _words(words: Words) -> str:
    shown = list(words.counts.items())[:_NUM_WORDS]
    parts = [f"{count:,} {word}" for word, count in shown]
    if len(words.counts) > len(shown):
        parts.append(f"{len(words.counts) - len(shown):,} others")
    if words.untold:
        parts.append(f"{words.untold:,} not told")
    return f"{words.name:<16} {', '.join(parts)}"


def _ledger(ledger: Ledger) -> list[str]:
    lines = [f"{'expected':<24} {ledger.expected:>12,}"]
    lines += [f"  dropped by {name:<11} {count:>12,}" for name, count in ledger.filtered.items()]
    lines += [f"  lost to {name:<14} {count:>12,}" for name, count in ledger.faulty.items()]
    share = ledger.kept / ledger.expected if ledger.expected else 0.0
    return [*lines, f"{'kept':<24} {ledger.kept:>12,}  {share:.1%}"]
