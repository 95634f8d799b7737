"""The direct baseline and unCLIPs are drawn from by one protocol, and told apart where it matters."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dalle2_train.errors import InputError
from dalle2_train.generation.config import DecoderStageConfig, GenerationConfig
from dalle2_train.generation.direct import DirectModel
from dalle2_train.generation.drawing import Enlarged, load_model, open_text_to_image
from dalle2_train.generation.load import load_unclip

PROMPTS = ["a red heart", "a small cat", ""]


@pytest.fixture(scope="module")
def direct(tiny: SimpleNamespace, models: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder."""
    return str(tiny.write_direct(tmp_path_factory.mktemp("direct") / "direct", Path(models["clip"])))


def test_its_pictures_are_one_forward_of_the_clips_tokens(direct: str):
    model = load_model([direct])
    assert isinstance(model, DirectModel) and set(model.parts) == {"direct"} and model.image_size == 16
    ids = model.clip.tokenizer(PROMPTS, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        floats = model.direct.network(ids["input_ids"], ids["attention_mask"].bool())
    expected = (floats.double().clamp(-1, 1) + 1) * 127.5
    progress: list[tuple[int, int]] = []
    drawer = open_text_to_image([direct], GenerationConfig(batch_size=2))
    made = drawer.draw(PROMPTS, seed=3, progress=lambda *now: progress.append(now))
    assert (made.image.double() - expected).abs().max() <= 0.5001
    assert made.image_embed is None and drawer.settings == {"batch_size": 2}
    assert progress == [(1, 2), (2, 2)]
    with pytest.raises(InputError, match="no prompt"):
        drawer.draw([])


def test_an_unclip_and_a_direct_baseline_are_not_taken_for_each_other(direct: str, models: Mapping[str, str]):
    with pytest.raises(InputError, match="a direct baseline is whole by itself, but a decoder"):
        load_model([direct, models["decoder"]])
    with pytest.raises(InputError, match="of kind 'direct'; an unCLIP is made of"):
        load_unclip([direct])
    with pytest.raises(InputError, match="two models of kind 'direct'"):
        load_model([direct, direct])


def test_settings_of_stages_that_it_lacks_are_refused(direct: str):
    sampler = GenerationConfig(decoder=DecoderStageConfig(guidance_scale=2.0))
    with pytest.raises(InputError, match=r"generation\.decoder: a direct model draws in one forward"):
        open_text_to_image([direct], sampler)


def test_enlarged_pictures_are_pillows(direct: str):
    small = open_text_to_image([direct])
    large = Enlarged(small, 64)
    made, before = large.draw(PROMPTS).image, small.draw(PROMPTS).image
    assert made.dtype == torch.uint8 and large.clip is small.clip
    assert large.settings["enlarged_to"] == 64
    for ours, channel in zip(made.flatten(0, 1), before.flatten(0, 1), strict=True):
        # In floating point: of bytes Pillow would cut off the overshoot of its first pass.
        theirs = Image.fromarray(channel.float().numpy()).resize((64, 64), Image.Resampling.BICUBIC)
        assert np.abs(ours.numpy() - np.asarray(theirs).clip(0, 255)).max() <= 0.501
