"""The report as plain text for a terminal."""

from dalle2_train.evaluation.report import EvaluationReport
from dalle2_train.evaluation.rows import HEADERS, eyes, rows


def table(report: EvaluationReport) -> str:
    """One block per split and pair of eyes, ± one standard error."""
    label_width, width = 42, 18
    lines = [f"{report.model}  {report.model_digest[:12]}"]
    for name, _, reading in eyes(report):
        for split in reading.splits:
            size = report.counts.get(f"gallery.{split}", 0)
            queries = report.counts.get(f"queries.{split}", 0)
            heading = f"{name}, {split} ({queries} captions)"
            lines += ["", heading.ljust(label_width) + "".join(header.rjust(width) for header in HEADERS)]
            lines += [
                f"  {row.label}".ljust(label_width) + "".join(cell.rjust(width) for cell in row.cells)
                for row in rows(reading, split, size)
            ]
    return "\n".join(lines)
