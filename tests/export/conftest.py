"""Model folders shared by the tests of this room."""

import importlib
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from dalle2_train.errors import RefusedError
from dalle2_train.export import proof, upsampler_proof
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
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proofs' scripts in this process: a fresh one costs many seconds of imports."""
    from diffusers.schedulers import scheduling_unclip

    def run(script: Path, *files: Path) -> None:
        # Registered, so that the script's own replacement is undone after the test.
        monkeypatch.setattr(scheduling_unclip, "randn_tensor", scheduling_unclip.randn_tensor)
        try:
            importlib.import_module(f"dalle2_train.export.{script.stem}").main(*files)
        except SystemExit as error:
            raise RefusedError(str(error)) from error

    for module in (proof, upsampler_proof):
        monkeypatch.setattr(module, "run_afresh", run)
