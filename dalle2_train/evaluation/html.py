"""The report as one page that needs no other file: tables, and generated beside real pictures.

Legend: H W picture size in pixels.
"""

import base64
import io
import json
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image
from torch import Tensor

from dalle2_train.evaluation.evaluate import Evaluation, Example
from dalle2_train.evaluation.report import EvaluationReport, Reading
from dalle2_train.evaluation.rows import HEADERS, PRIOR_HEADERS, PRIOR_NOTE, Row, eyes, prior_rows, rows

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --line: #e4e7ec; --paper: #fff; --mark: #eef4ff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #344054; --paper: #151a23; --mark: #1c2c4a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1080px; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p, .soft { color: var(--soft); margin: .2rem 0; } code { font-size: .87em; overflow-wrap: anywhere; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(500px, 100%), 1fr)); gap: 1rem 2.4rem;
  align-items: start; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .87rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .32rem .4rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; } th { color: var(--soft); font-weight: 500; }
tr.generated { background: var(--mark); font-weight: 600; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 1rem; }
figure { margin: 0; } .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; }
.pair img { width: 100%; aspect-ratio: 1; border-radius: 6px; border: 1px solid var(--line);
  box-sizing: border-box; background: #fff; }
.small img { image-rendering: pixelated; }
figcaption { font-size: .8rem; color: var(--soft); margin-top: .3rem; line-height: 1.3; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .87rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


def render(evaluation: Evaluation) -> str:
    """The whole page; captions and URIs are escaped."""
    report = evaluation.report
    body = [
        "<h1>Evaluation</h1>",
        f"<p><code>{escape(report.model)}</code></p>",
        "<p>R@k: how often the real picture of a caption is among the k nearest of the gallery to the generated one. "
        "KID: distance to held-out real pictures, 0 is best. ± is one standard error.</p>",
        *(_section(name, note, reading, report) for name, note, reading in eyes(report)),
        _prior(report),
        *(_pictures(split, examples) for split, examples in evaluation.examples.items()),
        _details(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation of {escape(report.model)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _section(name: str, note: str, reading: Reading, report: EvaluationReport) -> str:
    tables = "".join(
        _table(HEADERS, rows(reading, split, report.counts.get(f"gallery.{split}", 0)), split, report)
        for split in reading.splits
    )
    title = {"judge": "By the judge", "clip": "By the model's own CLIP"}[name]
    return f'<h2>{title}</h2><p>{escape(note)}</p><div class="tables">{tables}</div>'


def _prior(report: EvaluationReport) -> str:
    if report.prior is None:
        return ""
    tables = "".join(
        _table(PRIOR_HEADERS, prior_rows(cosines), split, report) for split, cosines in report.prior.items()
    )
    return f'<h2>The prior\'s embeddings</h2><p>{escape(PRIOR_NOTE)}</p><div class="tables">{tables}</div>'


def _table(headers: Sequence[str], found: Iterable[Row], split: str, report: EvaluationReport) -> str:
    head = "".join(f"<th>{header}</th>" for header in ("", *headers))
    lines = [
        f"<tr{' class=generated' if row.is_generated else ''}><td>{escape(row.label)}</td>"
        + "".join(f"<td>{cell}</td>" for cell in row.cells)
        + "</tr>"
        for row in found
    ]
    queries = report.counts.get(f"queries.{split}", 0)
    caption = f'{escape(split)} <span class="soft">· {queries} captions</span>'
    return f"<table><caption>{caption}</caption><tr>{head}</tr>{''.join(lines)}</table>"


def _pictures(split: str, examples: list[Example]) -> str:
    figures = "".join(
        f'<figure><div class="pair{" small" if example.real.shape[-1] < 100 else ""}">'
        f'<img src="{_data_uri(example.generated)}" alt="generated" title="generated">'
        f'<img src="{_data_uri(example.real)}" alt="real" title="real"></div>'
        f"<figcaption>{escape(example.caption)}</figcaption></figure>"
        for example in examples
    )
    return f'<h2>{escape(split)}: generated | real</h2><div class="pictures">{figures}</div>'


def _details(report: EvaluationReport) -> str:
    facts = {
        "model digest": report.model_digest,
        "data": report.data,
        "questions": report.questions,
        "evaluated": report.created,
        "seconds": json.dumps(report.seconds),
        "counts": json.dumps(report.counts),
        "evaluation": json.dumps(report.config),
        "sampler": json.dumps(report.sampler),
    }
    items = "".join(f"<dt>{name}</dt><dd><code>{escape(value)}</code></dd>" for name, value in facts.items())
    return f"<h2>What was asked</h2><dl>{items}</dl>"


def _data_uri(image: Tensor) -> str:
    """(3, H, W) uint8 → a PNG in a data: URI."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
