"""A folder that diffusers wrote comes in as our models, tensor by tensor, and goes out as it came."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import karlo_folders
import numpy as np
import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from safetensors.torch import load_file, save_file

from dalle2_train.checkpoints import model_digest, open_model
from dalle2_train.encoders.loading import load_clip
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.export import export_release
from dalle2_train.export.diffusers_configs import decoder_config, prior_config, upsampler_config
from dalle2_train.export.diffusers_names import default_config
from dalle2_train.export.import_folder import check_import, import_diffusers
from dalle2_train.networks import decoder, prior, upsampler
from dalle2_train.networks.decoder import Decoder, DecoderConfig
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.networks.upsampler import Upsampler, UpsamplerConfig
from dalle2_train.recipe import load_recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="session")
def text_to_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return karlo_folders.write_pipeline(tmp_path_factory.mktemp("theirs") / "text_to_image")


@pytest.fixture(scope="session")
def variation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return karlo_folders.write_pipeline(tmp_path_factory.mktemp("theirs") / "variation", variation=True)


@pytest.fixture(scope="session")
def imported(text_to_image: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return import_diffusers(str(text_to_image), str(tmp_path_factory.mktemp("ours") / "karlo")).path


def equal(ours: dict[str, torch.Tensor], file: Path, prefix: str = "") -> None:
    theirs = load_file(file)
    assert {name for name in ours if name.startswith(prefix)} == {prefix + name for name in theirs}
    assert all(torch.equal(ours[prefix + name], value) for name, value in theirs.items())


def test_every_tensor_is_there(imported: str, text_to_image: Path):
    for folder, part, prefix in [
        ("prior", "prior", ""),
        ("decoder", "decoder", "unet."),
        ("decoder", "text_proj", "text_proj."),
        ("upsampler", "super_res_first", ""),
        ("upsampler/last", "super_res_last", ""),
    ]:
        manifest, state = open_model(f"{imported}/{folder}")
        assert manifest.kind == folder.partition("/")[0]
        equal(state, text_to_image / part / WEIGHTS, prefix)
    first, last = open_model(f"{imported}/upsampler")[1], open_model(f"{imported}/upsampler/last")[1]
    assert not first["conv_in.weight"].equal(last["conv_in.weight"])


def test_the_clip_is_the_text_half_alone(imported: str, text_to_image: Path):
    clip = load_clip(f"{imported}/clip")
    assert not clip.sees_pictures
    equal(clip.model.state_dict(), text_to_image / "text_encoder" / "model.safetensors")
    assert {open_model(f"{imported}/{kind}")[0].clip.fingerprint for kind in ("prior", "decoder")} == {
        clip.fingerprint
    }


def test_a_variation_folder_has_a_whole_clip_and_no_prior(variation: Path, imported: str, tmp_path: Path):
    release = import_diffusers(str(variation), str(tmp_path / "ours"))
    assert release.models.keys() == {"clip", "decoder", "upsampler"}
    clip = load_clip(f"{release.path}/clip")
    ours = clip.model.state_dict()
    assert set(ours) - {"logit_scale"} == {
        name
        for part in ("text_encoder", "image_encoder")
        for name in load_file(variation / part / "model.safetensors")
    }
    assert all(ours[name].equal(value) for part in ("text_encoder", "image_encoder")
               for name, value in load_file(variation / part / "model.safetensors").items())  # fmt: skip
    assert clip.sees_pictures and clip.answers_to(load_clip(f"{imported}/clip").fingerprint)


def test_from_and_to_an_object_store_and_once(text_to_image: Path, imported: str):
    import fsspec

    fsspec.filesystem("memory").put(str(text_to_image), "/theirs", recursive=True)
    remote = import_diffusers("memory://theirs", "memory://ours/karlo")
    for kind in ("prior", "decoder", "upsampler"):
        for name, value in open_model(f"{remote.path}/{kind}")[1].items():
            assert value.equal(open_model(f"{imported}/{kind}")[1][name])
    assert import_diffusers("memory://theirs", "memory://ours/karlo") == remote
    with pytest.raises(InputError, match="something is there already"):
        import_diffusers(str(text_to_image), str(text_to_image.parent))


def test_a_dry_run_of_a_finished_import_finds_it_done(text_to_image: Path, imported: str, tmp_path: Path):
    assert check_import(str(text_to_image), imported) == ["clip", "prior", "decoder", "upsampler"]
    other = shutil.copytree(text_to_image, tmp_path / "theirs")
    edit(other / "prior" / "config.json", dropout=0.5)
    with pytest.raises(InputError, match="something is there already"):
        check_import(str(other), imported)


def test_no_bar_of_transformers_tears_the_line(text_to_image: Path, tmp_path: Path, capfd):
    import_diffusers(str(text_to_image), str(tmp_path / "ours"))
    assert "%|" not in capfd.readouterr().err


def test_the_length_of_embeddings_is_known_by_the_priors_statistics(
    text_to_image: Path, imported: str, variation: Path, tmp_path: Path
):
    theirs = load_file(text_to_image / "prior" / WEIGHTS)
    mean, std = (theirs[name].double().numpy() for name in ("clip_mean", "clip_std"))
    drawn = mean + std * np.random.default_rng(0).standard_normal((40_000, mean.shape[1]))
    length = np.sqrt(np.square(drawn).sum(axis=1).mean())
    for kind in ("prior", "decoder"):
        assert open_model(f"{imported}/{kind}")[0].image_embed_norm == pytest.approx(length, rel=5e-3)
    alone = import_diffusers(str(variation), str(tmp_path / "alone")).path
    assert open_model(f"{alone}/decoder")[0].image_embed_norm is None
    unmeasured = shutil.copytree(text_to_image, tmp_path / "theirs")
    zeros = {name: torch.zeros_like(theirs[name]) for name in ("clip_mean", "clip_std")}
    save_file(theirs | zeros, unmeasured / "prior" / WEIGHTS)
    again = import_diffusers(str(unmeasured), str(tmp_path / "again")).path
    assert open_model(f"{again}/decoder")[0].image_embed_norm is None


def test_narrower_weights_keep_their_values_and_sharded_ones_their_tensors(
    text_to_image: Path, tmp_path: Path
):
    folder = shutil.copytree(text_to_image, tmp_path / "half")
    PriorTransformer.from_pretrained(folder / "prior").half().save_pretrained(tmp_path / "half" / "prior")
    (folder / "decoder" / WEIGHTS).unlink()
    UNet2DConditionModel.from_pretrained(text_to_image / "decoder").save_pretrained(
        folder / "decoder", max_shard_size="500KB"
    )
    assert not (folder / "decoder" / WEIGHTS).exists()
    ours = import_diffusers(str(folder), str(tmp_path / "ours")).path
    half = load_file(folder / "prior" / WEIGHTS)
    state = open_model(f"{ours}/prior")[1]
    assert all(
        value.dtype == torch.float32 and value.equal(half[name].float()) for name, value in state.items()
    )
    equal(open_model(f"{ours}/decoder")[1], text_to_image / "decoder" / WEIGHTS, "unet.")


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def reshape(folder: Path) -> None:
    file = folder / "decoder" / WEIGHTS
    weights = load_file(file)
    weights["conv_in.bias"] = torch.zeros(33)
    weights["another.weight"] = weights.pop("conv_out.bias")
    save_file(weights, file)


def pickle(folder: Path) -> None:
    torch.save(load_file(folder / "prior" / WEIGHTS), folder / "prior" / "diffusion_pytorch_model.bin")
    (folder / "prior" / WEIGHTS).unlink()


SPOILT: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: edit(f / "prior/config.json", norm_in_type="layer"), "prior: .*norm_in_type is 'layer', ours is None"),
    (lambda f: edit(f / "prior/config.json", time_embed_dim=99), "prior: .*time_embed_dim is 99, ours is 36"),
    (lambda f: edit(f / "prior/config.json", brand_new=1), "prior: its config has 'brand_new'"),
    (lambda f: edit(f / "decoder/config.json", act_fn="gelu"), "decoder: .*act_fn is 'gelu', ours is 'silu'"),
    (lambda f: edit(f / "decoder/config.json", layers_per_block=[1, 1, 1]), "decoder/config.json.num_resnets"),
    (lambda f: edit(f / "decoder/config.json", down_block_types=["DownBlock2D"] * 3), "decoder: .*down_block_types"),
    (lambda f: edit(f / "text_proj/config.json", time_embed_dim=64), "text_proj: .*time_embed_dim is 64, ours is 128"),
    (lambda f: edit(f / "super_res_last/config.json", in_channels=3), "super_res_last: .*in_channels is 3, ours is 6"),
    (lambda f: edit(f / "super_res_first/config.json", _class_name="UNet1DModel"), "super_res_first is a UNet1DModel"),
    (lambda f: edit(f / "prior_scheduler/scheduler_config.json", clip_sample_range=3.0), "clip_sample_range is 3.0"),
    (lambda f: edit(f / "decoder_scheduler/scheduler_config.json", variance_type="fixed_small_log"), "variance_type"),
    (lambda f: edit(f / "decoder_scheduler/scheduler_config.json", prediction_type="v"), "prediction_type is 'v'"),
    (lambda f: edit(f / "text_encoder/config.json", projection_dim=16), "text_encoder: .*text_projection.weight"),
    (lambda f: edit(f / "model_index.json", _class_name="StableDiffusionPipeline"), "it is a StableDiffusionPipeline"),
    (lambda f: edit(f / "model_index.json", vae=["diffusers", "VQModel"]), "has no 'vae'"),
    (lambda f: shutil.rmtree(f / "super_res_last"), "there is no super_res_last"),
    (reshape, r"decoder: .*missing: conv_out.bias; unexpected: another.weight; of another shape: conv_in.bias \(33,\)"),
    (lambda f: (f / "prior" / WEIGHTS).write_bytes(b"torn"), "prior: .* cannot be read"),
    (pickle, "prior: .*only pickled weights"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), SPOILT, ids=[message for _, message in SPOILT])
def test_what_ours_is_not_is_refused_by_name_and_leaves_nothing(
    text_to_image: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
):
    folder = shutil.copytree(text_to_image, tmp_path / "theirs")
    spoil(folder)
    for attempt in (import_diffusers, check_import):
        with pytest.raises(InputError, match=message):
            attempt(str(folder), str(tmp_path / "ours"))
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_picture_prepared_otherwise_is_refused(variation: Path, tmp_path: Path):
    folder = shutil.copytree(variation, tmp_path / "theirs")
    edit(folder / "feature_extractor" / "preprocessor_config.json", resample=2)
    with pytest.raises(InputError, match="feature_extractor: resample is 2"):
        import_diffusers(str(folder), str(tmp_path / "ours"))


def test_a_release_of_an_import_is_the_same_models(imported: str, tmp_path: Path):
    release = export_release([imported], str(tmp_path / "release"))
    assert release.models == import_models(imported)
    for folder in ("upsampler", "upsampler/last"):
        ours, again = (open_model(f"{home}/{folder}") for home in (imported, release.path))
        assert model_digest(ours[0]) == model_digest(again[0])


def import_models(folder: str) -> dict[str, str]:
    return json.loads(Path(folder, "unclip.json").read_text())["models"]


def test_a_damaged_import_is_not_said_to_be_done(text_to_image: Path, tmp_path: Path):
    ours = Path(import_diffusers(str(text_to_image), str(tmp_path / "ours")).path)
    (ours / "upsampler" / "last" / "model.safetensors").unlink()
    with pytest.raises(RefusedError, match=r"last/model\.safetensors"):
        import_diffusers(str(text_to_image), str(ours))


def test_karlos_configs_are_the_karlo_recipes():
    """So `train prior/karlo --init-from` needs no --set; dropout is a training's own."""

    def of(part: str, config: dict) -> dict:
        return {key: list(value) if isinstance(value, tuple) else value
                for key, value in (default_config(part) | config).items()}  # fmt: skip

    text_proj = of("text_proj", karlo_folders.KARLO_TEXT_PROJ)
    found = {
        "prior": prior_config(of("prior", {})),
        "decoder": decoder_config(of("decoder", karlo_folders.KARLO_DECODER), text_proj),
        "upsampler": upsampler_config(
            "super_res_last", of("super_res_last", karlo_folders.KARLO_SUPER_RES), 64
        ),
    }
    for family, config in found.items():
        recipe = load_recipe(f"{family}/karlo").model
        assert replace(config, dropout=recipe.network.dropout) == recipe.network


def test_karlos_full_width_has_our_names_and_shapes():
    """On the meta device: 2.4 billion parameters of no memory, built by diffusers from Karlo's own configs."""
    with torch.device("meta"):
        theirs = {
            "prior": PriorTransformer(),
            "decoder": UNet2DConditionModel(**karlo_folders.KARLO_DECODER),
            "text_proj": UnCLIPTextProjModel(**karlo_folders.KARLO_TEXT_PROJ),
            "upsampler": UNet2DModel(**karlo_folders.KARLO_SUPER_RES),
        }
        whole = Decoder(DecoderConfig(context_dim=1536))
        ours = {"prior": Prior(PriorConfig()), "decoder": whole.unet, "text_proj": whole.text_proj,
                "upsampler": Upsampler(UpsamplerConfig())}  # fmt: skip
    for part, network in ours.items():
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        assert shapes == {name: value.shape for name, value in theirs[part].state_dict().items()}
    configs = {
        "prior": prior.diffusers_config(PriorConfig()),
        "decoder": decoder.diffusers_config(DecoderConfig(context_dim=1536)),
        "text_proj": decoder.diffusers_text_proj_config(DecoderConfig(context_dim=1536)),
        "upsampler": upsampler.diffusers_config(UpsamplerConfig()),
    }
    for part, config in configs.items():
        assert config.items() <= dict(theirs[part].config).items()
