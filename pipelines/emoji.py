"""The quickstart's way with all 7,906 emoji and larger networks: `make emoji`, an hour on two cores."""

import sys

from dalle2_train.evaluation import EvaluationConfig
from dalle2_train.generation.config import (
    DecoderStageConfig,
    GenerationConfig,
    PriorStageConfig,
    UpsamplerStageConfig,
)
from pipelines.quickstart import Plan, main

EMOJI = Plan(
    source="emoji",
    recipes={family: f"{family}/small" for family in ("clip", "prior", "decoder", "upsampler")},
    workers={"clip": 0, "prior": 2, "decoder": 0, "upsampler": 0},
    sampler=GenerationConfig(
        prior=PriorStageConfig("ddim", 20, eta=1.0, guidance_scale=1.0),
        decoder=DecoderStageConfig("ddim", 25, eta=1.0, guidance_scale=2.0),
        upsampler=UpsamplerStageConfig("ddim", 5, eta=1.0),
    ),
    evaluation=EvaluationConfig(),
    model="emoji-small",
)

if __name__ == "__main__":
    sys.exit(main(EMOJI, "emoji", __doc__))
