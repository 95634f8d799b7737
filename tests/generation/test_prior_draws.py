"""Several embeddings a prompt, against drawing each alone; Analytic-DPM's statistics, against known ones."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gaussians import optimal
from torch import Tensor, nn

from dalle2_train.checkpoints import open_model
from dalle2_train.checkpoints.manifest import publish_manifest
from dalle2_train.encoders.encoder import TextFeatures
from dalle2_train.errors import InputError
from dalle2_train.generation.calibrate import CalibrationConfig, calibrate, known_x_0_variance
from dalle2_train.generation.config import PriorStageConfig
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.part import load_prior
from dalle2_train.generation.prior import nearest_to_text, run_prior
from dalle2_train.generation.unclip import Part, Unclip

PROMPTS = ["a red heart", "a small cat", "the moon", "", "an old dog"]
CONFIG = PriorStageConfig(num_steps=4, guidance_scale=2.0)


class Draw(Draws):
    """The noise of one later draw alone."""

    def initial(self, stage: str, shape: Sequence[int]) -> Tensor:
        return super().initial(f"{stage}/draw 2", shape)

    def of_step(self, stage: str, shape: Sequence[int], step: int) -> Tensor:
        return super().of_step(f"{stage}/draw 2", shape, step)


def draw(unclip: Unclip, draws: Draws, num_draws: int = 1) -> Tensor:
    text, null_text = unclip.clip.encode_captions(PROMPTS), unclip.clip.encode_captions([""])
    config = replace(CONFIG, num_draws=num_draws)
    return run_prior(unclip.prior, text, null_text, draws, config, lambda: None)


@pytest.fixture
def draws() -> Draws:
    return Draws(3, torch.arange(len(PROMPTS)))


def test_of_many_draws_the_one_nearest_to_the_text_is_kept(unclip: Unclip, draws: Draws) -> None:
    """Alone: the first draw, by its usual noise. Three: each prompt has one of three, and the best of them."""
    text_embed = unclip.clip.encode_captions(PROMPTS).text_embed.numpy()
    first, third = draw(unclip, draws), draw(unclip, Draw(*draws))
    two, three = draw(unclip, draws, 2), draw(unclip, draws, 3)
    text = text_embed / np.linalg.norm(text_embed, axis=1, keepdims=True)
    scores = [(found.numpy() / np.linalg.norm(found, axis=1, keepdims=True) * text).sum(axis=1)
              for found in (first, third, two, three)]  # fmt: skip
    np.testing.assert_array_less(scores[0], scores[2] + 1e-4)
    np.testing.assert_allclose(np.maximum(scores[2], scores[1]), scores[3], rtol=1e-4, atol=1e-4)
    for kept, others in ((two, (first,)), (three, (two, third))):
        same = torch.stack([(kept - other).abs().amax(dim=1) < 1e-4 for other in others])
        assert same.any(dim=1).all() if len(others) > 1 else 0 < same.sum() < len(PROMPTS)
    assert (torch.stack([(three - one).abs().amax(dim=1) for one in (two, third)]).amin(dim=0) < 1e-4).all()


def test_a_long_embedding_is_no_nearer_for_its_length() -> None:
    text = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    short, long = text.clone(), torch.tensor([[50.0, 50.0], [50.0, 50.0]])
    assert torch.equal(nearest_to_text(torch.stack([long, short]), text), short)


class GaussianPrior(nn.Module):
    """The optimal prediction for embeddings of these deviations, whatever the text."""

    def __init__(self, alphas_cumprod: Tensor, std: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.alphas_cumprod, self.std = alphas_cumprod, std

    def normalise(self, image_embed: Tensor) -> Tensor:
        return image_embed

    def forward(self, x_t: Tensor, t: Tensor, *text: Tensor) -> Tensor:
        return optimal(
            x_t, self.alphas_cumprod[t[0]], torch.zeros_like(self.std), self.std.square().diag()
        ).x_0


def test_calibration_finds_the_variance_of_x_0_given_x_t(
    unclip: Unclip,
) -> None:
    generator = torch.Generator().manual_seed(0)
    std = torch.tensor([1.5, 0.7, 0.3, 1.0], dtype=torch.float64)
    a = unclip.prior.schedule.alphas_cumprod
    x_0 = torch.randn(1000, 4, generator=generator, dtype=torch.float64) * std
    part: Part = replace(unclip.prior, network=GaussianPrior(a, std))
    text = TextFeatures(x_0, x_0, x_0)
    found = calibrate(part, x_0, text, CalibrationConfig(num_timesteps=26, batch_size=700))
    part = replace(part, manifest=replace(part.manifest, eps_statistics=found))
    known = known_x_0_variance(part).numpy()
    truth = (std**2 * (1 - a[:, None]) / (a[:, None] * std**2 + 1 - a[:, None])).mean(dim=1).numpy()
    assert found.num_samples == 1000 and len(found.timesteps) == 26
    # At first it is interpolated over a change of orders of magnitude, at last estimated from what is hardly there.
    np.testing.assert_allclose(known[20:700], truth[20:700], rtol=0.15)
    assert (known <= found.data_variance).all() and found.data_variance == pytest.approx(truth[-1], rel=0.1)


def test_a_prior_is_calibrated_once_and_says_so(tiny: SimpleNamespace, tmp_path: Path) -> None:
    clip = tiny.write_clip(tmp_path / "clip")
    folder = str(tiny.write_part(tmp_path / "prior", "prior", clip))
    part, encoder = load_prior(folder)
    config, text = replace(CONFIG, sampler="analytic_dpm"), encoder.encode_captions(PROMPTS)
    draws = Draws(0, torch.arange(len(PROMPTS)))
    with pytest.raises(InputError, match="run `dalle2-train calibrate` on the prior"):
        run_prior(part, text, encoder.encode_captions([""]), draws, config, lambda: None)
    found = calibrate(part, torch.randn(5, 32), text, CalibrationConfig(num_timesteps=3))
    publish_manifest(folder, replace(part.manifest, eps_statistics=found))
    assert open_model(folder)[0].eps_statistics == found
    drawn = run_prior(load_prior(folder)[0], text, encoder.encode_captions([""]), draws, config, lambda: None)
    assert drawn.shape == (5, 32) and drawn.isfinite().all()
