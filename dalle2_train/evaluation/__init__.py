"""How good generated pictures are: by a judge from outside, by the model's own CLIP, and in a report."""

from dalle2_train.evaluation.config import EvaluationConfig
from dalle2_train.evaluation.evaluate import ModelIdentity, evaluate
from dalle2_train.evaluation.identity import claimed_digest, verified_digest
from dalle2_train.evaluation.output import read_report, write_evaluation
from dalle2_train.evaluation.report import SPLITS, EvaluationReport, PriorCosines, Reading, Scores
from dalle2_train.evaluation.table import table
from dalle2_train.generation.text_to_image import Generated

__all__ = [
    "SPLITS",
    "EvaluationConfig",
    "EvaluationReport",
    "Generated",
    "ModelIdentity",
    "PriorCosines",
    "Reading",
    "Scores",
    "claimed_digest",
    "evaluate",
    "read_report",
    "table",
    "verified_digest",
    "write_evaluation",
]
