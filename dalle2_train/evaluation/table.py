"""The report as plain text for a terminal."""

from collections.abc import Iterable, Sequence

from dalle2_train.evaluation.report import EvaluationReport
from dalle2_train.evaluation.rows import HEADERS, PRIOR_HEADERS, Row, eyes, prior_rows, rows

_LABEL_WIDTH, _WIDTH = 42, 18


def table(report: EvaluationReport) -> str:
    """One block per split and pair of eyes, ± one standard error, and one per split for the prior's cosines."""
    lines = [f"{report.model}  {report.model_digest[:12]}"]
    for name, _, reading in eyes(report):
        for split in reading.splits:
            size = report.counts.get(f"gallery.{split}", 0)
            lines += _block(_heading(name, split, report), HEADERS, rows(reading, split, size))
    for split, cosines in (report.prior or {}).items():
        lines += _block(_heading("prior's cosines", split, report), PRIOR_HEADERS, prior_rows(cosines))
    return "\n".join(lines)


def _heading(name: str, split: str, report: EvaluationReport) -> str:
    return f"{name}, {split} ({report.counts.get(f'queries.{split}', 0)} captions)"


def _block(heading: str, headers: Sequence[str], found: Iterable[Row]) -> list[str]:
    return ["", _line(heading, headers), *(_line(f"  {row.label}", row.cells) for row in found)]


def _line(label: str, cells: Sequence[str]) -> str:
    return label.ljust(_LABEL_WIDTH) + "".join(cell.rjust(_WIDTH) for cell in cells)
