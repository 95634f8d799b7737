"""The UnCLIPScheduler that samples as we do."""

from typing import Any

from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.generation.config import IMAGE_CLIP_RANGE, PRIOR_CLIP_RANGE

# The pipelines split a decoder's six channels whatever its scheduler's variance is, and no other part's.
_VARIANCES = {"decoder_scheduler": "learned_range"}


def scheduler_config(part: str, schedule: ScheduleConfig, objective: ObjectiveConfig) -> dict[str, Any]:
    """The keyword arguments of the UnCLIPScheduler `part`: prior_, decoder_ or super_res_scheduler."""
    return {
        "beta_schedule": "squaredcos_cap_v2",
        "num_train_timesteps": schedule.num_steps,
        "prediction_type": objective.prediction_type,
        "variance_type": _VARIANCES.get(part, "fixed_small_log"),
        "clip_sample": True,
        "clip_sample_range": PRIOR_CLIP_RANGE if part == "prior_scheduler" else IMAGE_CLIP_RANGE,
    }
