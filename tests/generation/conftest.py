"""Model folders shared by the tests of this room."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.unclip import Unclip


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The functions that write tiny models."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_unclip.py"))))


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
