"""Reports of several models as one table in Markdown, a line a model and split."""

from collections.abc import Mapping

from dalle2_train.errors import InputError
from dalle2_train.evaluation.report import EvaluationReport
from dalle2_train.evaluation.rows import HEADERS, prior_rows, rows


def side_by_side(reports: Mapping[str, EvaluationReport]) -> str:
    """Label → report, to a table of the judge's scores and of the prior's cosine with the real picture.

    After the models come the first report's floor, its ceiling and what lies between, which are the same for all.
    InputError where the reports asked different questions.
    """
    _check_questions(reports)
    first = next(iter(reports.values()))
    lines = [_line("", "split", *HEADERS, "prior's cosine"), _line("---", "---", *["---:"] * 4)]
    for label, report in reports.items():
        for split in report.judge.splits:
            lines.append(_line(label, split, *_generated(report, split), _cosine(report, split)))
            label = ""
    for split in first.judge.splits:
        for row in rows(first.judge, split, first.counts.get(f"gallery.{split}", 0)):
            if not row.is_generated:
                lines.append(_line(row.label, split, *row.cells, ""))
    return "\n".join(lines) + "\n"


def _check_questions(reports: Mapping[str, EvaluationReport]) -> None:
    labels = list(reports)
    for label in labels[1:]:
        if reports[label].questions != reports[labels[0]].questions:
            raise InputError(
                f"{labels[0]!r} and {label!r} were asked about different pictures; evaluate both on the same data, "
                "with the same image_size, gallery_size and num_queries"
            )


def _generated(report: EvaluationReport, split: str) -> tuple[str, ...]:
    found = rows(report.judge, split, report.counts.get(f"gallery.{split}", 0))
    return next(row.cells for row in found if row.is_generated)


def _cosine(report: EvaluationReport, split: str) -> str:
    return next(prior_rows(report.prior[split])).cells[0] if report.prior else "–"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
