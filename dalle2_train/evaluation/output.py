"""Where reports lie: MODEL/evaluation/report.json for programs, report.html for people."""

from dalle2_train import storage
from dalle2_train.errors import InputError
from dalle2_train.evaluation.evaluate import Evaluation
from dalle2_train.evaluation.html import render
from dalle2_train.evaluation.report import EvaluationReport

FOLDER = "evaluation"
JSON_NAME = "report.json"
HTML_NAME = "report.html"


def write_evaluation(evaluation: Evaluation, folder: str) -> str:
    """Publishes both reports in `folder`, the JSON last; returns the JSON's URI. For a model: join(MODEL, FOLDER)."""
    storage.publish_bytes(storage.join(folder, HTML_NAME), render(evaluation).encode())
    uri = storage.join(folder, JSON_NAME)
    storage.publish_json(uri, evaluation.report.to_json())
    return uri


def report_uri(model_uri: str) -> str:
    """Where the report of the model at `model_uri` lies, if it was evaluated."""
    return storage.join(model_uri, FOLDER, JSON_NAME)


def read_report(model_uri: str) -> EvaluationReport | None:
    """The report of the model at `model_uri`, None where it was never evaluated. Damaged: InputError."""
    uri = report_uri(model_uri)
    if not storage.exists(uri):
        return None
    try:
        return EvaluationReport.from_json(storage.read_json(uri), uri)
    except (AttributeError, TypeError) as error:
        raise InputError(f"{uri}: not an evaluation report ({error}); evaluate the model again") from error
