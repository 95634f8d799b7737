"""The second upsampler in a folder of its own: diffusers computes what we do, or there is no folder."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dalle2_train.checkpoints import model_digest
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.export import upsampler_folder
from dalle2_train.export.upsampler_folder import export_upsampler
from dalle2_train.generation.config import UpsamplerStageConfig
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.part import load_upsampler
from dalle2_train.generation.upsampling import run_upsampler
from dalle2_train.networks.upsampler import UpsamplerConfig, enlarge

CONFIG = UpsamplerConfig(low_size=32, high_size=64, channels=(32, 32), num_resnets=1)

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, at import


@pytest.fixture
def model(tiny: SimpleNamespace, tmp_path: Path) -> str:
    return str(tiny.write_part(tmp_path / "second", "upsampler", None, network_config=CONFIG))


@pytest.mark.slow
def test_a_fresh_process_computes_the_same(model: str, tmp_path: Path):
    made = export_upsampler(model, str(tmp_path / "folder"))
    assert max(made.proof["super_res_first"], made.proof["super_res_last"]) < 1e-12
    assert made.proof["alphas_cumprod"] < 1e-6


@pytest.mark.usefixtures("in_process")
def test_unclip_pipelines_loop_draws_our_picture(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The super-resolution half of UnCLIPPipeline, step by step, from the folder's parts."""
    from diffusers import UnCLIPScheduler, UNet2DModel
    from diffusers.schedulers import scheduling_unclip

    folder = Path(export_upsampler(model, str(tmp_path / "folder")).path)
    part, draws, shape = load_upsampler(model), Draws(0, torch.arange(2)), (3, 64, 64)
    small = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours = run_upsampler(part, "s", small, draws, UpsamplerStageConfig(num_steps=4), lambda: None)
    network = UNet2DModel.from_pretrained(str(folder / "super_res_first"))
    scheduler = UnCLIPScheduler.from_pretrained(str(folder / "super_res_scheduler"))
    noise = [draws.of_step("s", shape, step) for step in range(3)]
    monkeypatch.setattr(scheduling_unclip, "randn_tensor", lambda *_, **__: noise.pop(0))
    scheduler.set_timesteps(4)
    x_t, steps = draws.initial("s", shape), [*scheduler.timesteps, None]
    for t, before in pairwise(steps):
        with torch.no_grad():
            eps = network(torch.cat([x_t, enlarge(small, 64)], dim=1), t).sample
        x_t = scheduler.step(eps, t, x_t, prev_timestep=before).prev_sample
    torch.testing.assert_close(ours, x_t.clamp(-1, 1), atol=1e-3, rtol=0)


@pytest.mark.usefixtures("in_process")
def test_again_it_is_left_as_it_is_and_damage_is_told(model: str, tmp_path: Path):
    made = export_upsampler(model, str(tmp_path / "folder"))
    assert export_upsampler(model, made.path) == made
    assert set(json.loads(Path(made.path, "export.json").read_text())) == {"models", "proof", "files"}
    Path(made.path, "super_res_first", "config.json").write_text("{}")
    with pytest.raises(RefusedError, match=r"super_res_first/config\.json"):
        export_upsampler(model, made.path)


@pytest.mark.usefixtures("in_process")
def test_another_network_in_the_folder_is_refused_and_leaves_nothing(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = upsampler_folder._write

    def write_and_damage(part, folder: Path) -> None:
        write(part, folder)
        from safetensors.torch import load_file, save_file

        file = folder / "super_res_last" / "diffusion_pytorch_model.safetensors"
        weights = load_file(file)
        weights["conv_in.bias"] += 1e-3
        save_file(weights, file, metadata={"format": "pt"})

    monkeypatch.setattr(upsampler_folder, "_write", write_and_damage)
    with pytest.raises(RefusedError, match="super_res_last differs"):
        export_upsampler(model, str(tmp_path / "folder"))
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"models": MODELS}',
        '{"models": MODELS, "proof": {"upsampler": 0}}',
        '{"models": MODELS, "proof": {"upsampler": 0}, "files": {}}',
        '{"models": MODELS, "proof": {"upsampler": 0}, "files": []}',
    ],
)
def test_an_export_json_of_another_program_is_told(model: str, tmp_path: Path, text: str):
    digest = model_digest(load_upsampler(model).manifest)
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "export.json"
    file.write_text(text.replace("MODELS", json.dumps({"upsampler": digest})))
    with pytest.raises(InputError, match="something is there already"):
        export_upsampler(model, str(tmp_path / "folder"))


def test_what_diffusers_cannot_hold_and_other_models_are_refused(
    models, second: str, tiny: SimpleNamespace, tmp_path: Path
):
    to = str(tmp_path / "folder")
    with pytest.raises(RefusedError, match="noise schedule is 'linear'"):
        export_upsampler(second, to)
    v = tiny.write_part(tmp_path / "v", "upsampler", None, objective=ObjectiveConfig("v_prediction"))
    with pytest.raises(RefusedError, match="v_prediction"):
        export_upsampler(str(v), to)
    with pytest.raises(InputError, match="kind 'prior'; give an upsampler"):
        export_upsampler(models["prior"], to)
