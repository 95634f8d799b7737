"""Out again as it came in: the same tensors bit for bit and the same configs."""

import json
from pathlib import Path
from typing import Any

import karlo_folders
import pytest
from safetensors.torch import load_file

from dalle2_train.export import diffusers_folder
from dalle2_train.export.diffusers_folder import load_exportable
from dalle2_train.export.diffusers_names import IMAGE_VARIATION, TEXT_TO_IMAGE
from dalle2_train.export.import_folder import import_diffusers

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

# How a library names itself.
_PASSING = ("_diffusers_version", "transformers_version", "_name_or_path")

ODD: dict[str, Any] = {
    "prior": {"num_attention_heads": 3, "attention_head_dim": 10, "dropout": 0.1, "clip_embed_dim": None},
    "decoder": {
        "block_out_channels": (24, 40), "norm_num_groups": 8, "attention_head_dim": 8, "layers_per_block": 2,
        "sample_size": 8, "time_embedding_dim": 56, "dropout": 0.2,
        "down_block_types": ("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
    },
    "text_proj": {"clip_extra_context_tokens": 3, "time_embed_dim": 56},
    "super_res_first": {"block_out_channels": (24, 48, 24), "norm_num_groups": 6, "layers_per_block": 2,
                        "down_block_types": 3 * ("ResnetDownsampleBlock2D",),
                        "up_block_types": 3 * ("ResnetUpsampleBlock2D",)},
    "super_res_scheduler": {"num_train_timesteps": 300, "prediction_type": "sample"},
    "prior_scheduler": {"prediction_type": "epsilon"},
}  # fmt: skip


def out_again(theirs: Path, tmp_path: Path, pipeline: str) -> Path:
    """Imported, loaded, and written as an export writes it."""
    release = import_diffusers(str(theirs), str(tmp_path / "release"))
    unclip = load_exportable([release.path], pipeline)
    diffusers_folder.write_folder(unclip, tmp_path / "again", "0.42.1", pipeline)
    return tmp_path / "again"


def meaning(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text())
    # Spellings of places: diffusers' own of text_proj cannot be loaded, and torchvision decides that of the other.
    for part in ("text_proj", "feature_extractor"):
        found.pop(part, None)
    return {key: value for key, value in found.items() if key not in _PASSING}


@pytest.mark.parametrize(
    ("variation", "changes"),
    [(False, {}), (True, {}), (False, ODD)],
    ids=["text-to-image", "variation", "odd"],
)
def test_the_same_tensors_and_configs(tmp_path: Path, variation: bool, changes: dict[str, Any]):
    theirs = karlo_folders.write_pipeline(tmp_path / "theirs", variation=variation, **changes)
    again = out_again(theirs, tmp_path, IMAGE_VARIATION if variation else TEXT_TO_IMAGE)
    weights = [path.relative_to(theirs) for path in theirs.rglob("*.safetensors")]
    assert len(weights) == 6
    for name in weights:
        before, after = load_file(theirs / name), load_file(again / name)
        assert before.keys() == after.keys()
        assert all(
            value.dtype == after[key].dtype and value.equal(after[key]) for key, value in before.items()
        )
    configs = [
        path.relative_to(theirs) for path in theirs.rglob("*config.json") if path.parent.name != "tokenizer"
    ]
    assert len(configs) == 9
    for name in [*configs, Path("model_index.json")]:
        assert meaning(again / name) == meaning(theirs / name), name
