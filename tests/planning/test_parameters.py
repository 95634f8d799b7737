"""Counts that recipes' headers and docs print are those of the networks; Karlo's are those of diffusers' classes."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from torch import nn
from transformers import CLIPConfig, CLIPModel

from dalle2_train.planning.parameters import Parameters, count_parameters
from dalle2_train.recipe import load_recipe
from dalle2_train.recipes import list_recipes, recipe_path

DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"
SIZED = [name for name in list_recipes() if re.search(r"/(base|karlo|paper)", name)]
UNITS = {"B": 1e9, "M": 1e6}
UNSAID = (
    "clip/base",
    "clip/paper",
    "prior/base",
    "ar_prior/base",
    "decoder/base",
    "upsampler/base",
    "upsampler/base-1024",
)
"""Recipes of whose size no source speaks."""


@cache
def counted(name: str) -> Parameters:
    return count_parameters(load_recipe(name).model)


def numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\d", text)]


@pytest.mark.parametrize("name", list_recipes())
def test_a_header_prints_the_counts_of_the_network(name: str) -> None:
    header = re.search(r"^# Parameters: (.*?)\.", recipe_path(name).read_text(), re.MULTILINE)
    assert header is not None, "no line of parameters"
    assert header[1] == str(counted(name))


@pytest.mark.parametrize("name", SIZED)
def test_the_docs_print_the_counts_and_whose_variant_it_is(name: str) -> None:
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    _, profile, total, without, *_ = (cell.strip() for cell in row.strip("|").split("|"))
    found = counted(name)
    assert profile == load_recipe(name).profile
    assert numbers(total) == [found.total]
    assert numbers(without) == ([found.total - found.text_encoder] if found.text_encoder else [])


@pytest.mark.parametrize("name", SIZED)
def test_the_docs_compare_with_the_source_and_explain_what_is_far_off(name: str) -> None:
    text = DOCS.read_text()
    row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
    source = row.strip("|").split("|")[4].strip().replace("−", "-")
    if name in UNSAID:
        assert source == "–"
        return
    found, (size, unit) = counted(name), re.match(r"([\d.]+)([BM])", source).groups()
    counts = [found.total, found.total - found.text_encoder] if found.text_encoder else [found.total]
    gaps = [round(100 * (count / (float(size) * UNITS[unit]) - 1)) for count in counts]
    assert [int(gap) for gap in re.findall(r"([+-]?\d+) %", source)] == gaps
    explained = "\n".join(line for line in text.splitlines() if line.startswith(("- **", "- The **", "  ")))
    for number, gap in zip(counts, gaps, strict=True):
        assert abs(gap) <= 10 or f"{number / 1e9:.2f}B" in explained, f"{number:,} is {gap} % off"


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_karlos_prior_is_diffusers() -> None:
    with torch.device("meta"):
        theirs = PriorTransformer(num_attention_heads=32, attention_head_dim=64, num_layers=20, embedding_dim=768,
                                  num_embeddings=77, additional_embeddings=4)  # fmt: skip
    statistics = theirs.clip_mean.numel() + theirs.clip_std.numel()  # ours are no parameters
    assert counted("prior/karlo").total == count(theirs) - statistics


def test_karlos_decoder_is_diffusers() -> None:
    """The shapes of diffusers' own conversion of Karlo's weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            layers_per_block=3,
            down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3),
            up_block_types=(*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            block_out_channels=(320, 640, 960, 1280),
            in_channels=3,
            out_channels=6,
            cross_attention_dim=1536,
            class_embed_type="identity",
            attention_head_dim=64,
            resnet_time_scale_shift="scale_shift",
        )
        text_proj = UnCLIPTextProjModel(
            clip_extra_context_tokens=4,
            clip_embeddings_dim=768,
            time_embed_dim=1280,
            cross_attention_dim=1536,
        )
    assert counted("decoder/karlo").total == count(unet) + count(text_proj)


def test_karlos_upsampler_is_diffusers() -> None:
    with torch.device("meta"):
        theirs = UNet2DModel(
            sample_size=256,
            layers_per_block=3,
            down_block_types=("ResnetDownsampleBlock2D",) * 4,
            up_block_types=("ResnetUpsampleBlock2D",) * 4,
            block_out_channels=(320, 640, 960, 1280),
            in_channels=6,
            out_channels=3,
            add_attention=False,
        )
    assert counted("upsampler/karlo").total == count(theirs)


def test_karlos_clip_is_the_published_vit_l_14() -> None:
    """The sizes that openai/clip-vit-large-patch14 has in its config.json."""
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
              "patch_size": 14}  # fmt: skip
    with torch.device("meta"):
        theirs = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=768))
    assert counted("clip/karlo").total == count(theirs)
