"""Stages with typed results that are skipped when done, watched while they go, and summed up at the end."""

from dalle2_train.workflow.curves import loss_curves
from dalle2_train.workflow.stages import StageRecord, Workflow

__all__ = ["StageRecord", "Workflow", "loss_curves"]
