"""The quickstart's way with all 7,906 emoji and larger networks: `make emoji`, an hour and a half on two cores."""

import sys

from dalle2_train.evaluation import EvaluationConfig
from dalle2_train.generation.pipeline import GenerationConfig
from pipelines.quickstart import Plan, main

EMOJI = Plan(
    source="emoji",
    recipes={family: f"{family}/small" for family in ("clip", "prior", "decoder", "upsampler")},
    workers={"clip": 0, "prior": 2, "decoder": 0, "upsampler": 0},
    sampler=GenerationConfig(
        prior_num_steps=20,
        decoder_num_steps=25,
        upsampler_num_steps=5,
        prior_guidance_scale=1.0,
        decoder_guidance_scale=2.0,
        sampler="ddim",
        eta=1.0,
    ),
    evaluation=EvaluationConfig(),
    model="emoji-small",
)

if __name__ == "__main__":
    sys.exit(main(EMOJI, "emoji", __doc__))
