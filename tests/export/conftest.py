"""Model folders shared by the tests of this room."""

import json
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from dalle2_train.errors import RefusedError
from dalle2_train.export import proof
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.unclip import Unclip


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The functions that write tiny models."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "generation" / "tiny_unclip.py")))


@pytest.fixture(scope="session")
def models(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """kind → model folder."""
    return tiny.write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def second(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an upsampler for what the other one makes, 32 → 64 pixels."""
    return tiny.write_second_upsampler(tmp_path_factory.mktemp("second") / "upsampler")


@pytest.fixture(scope="session")
def unclip(models: Mapping[str, str]) -> Unclip:
    """All the parts."""
    return load_unclip(list(models.values()))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The proof's drawing in this process: a fresh one costs many seconds of imports."""
    from diffusers.schedulers import scheduling_unclip

    from dalle2_train.export import draw_with_diffusers

    def draw(folder: Path, request: dict[str, object], noise: dict[str, Tensor]) -> Tensor:
        # Registered, so that the script's own replacement is undone after the test.
        monkeypatch.setattr(scheduling_unclip, "randn_tensor", scheduling_unclip.randn_tensor)
        asked, given, drawn = (
            tmp_path / "request.json",
            tmp_path / "noise.safetensors",
            tmp_path / "drawn.safetensors",
        )
        asked.write_text(json.dumps(request))
        save_file(noise, given)
        try:
            draw_with_diffusers.main(folder, asked, given, drawn)
        except SystemExit as error:
            raise RefusedError(str(error)) from error
        return load_file(drawn)["images"]

    monkeypatch.setattr(proof, "_draw_afresh", draw)
