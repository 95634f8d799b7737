"""Weights to begin with: from whatever holds them, and what does not fit is told at once with the remedy."""

import shutil
from dataclasses import replace
from pathlib import Path

import karlo_folders
import pytest
import torch
from safetensors.torch import load_file
from tiny_clip import CONFIG, save_tiny_clip
from toy_training import losses
from transformers import CLIPModel, CLIPTextModelWithProjection

from dalle2_train.checkpoints import open_model
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.encoders.loading import load_clip
from dalle2_train.errors import InputError
from dalle2_train.export.import_folder import import_diffusers
from dalle2_train.launch import check, train
from dalle2_train.launch.initial import Initial, initial_digest, open_initial
from dalle2_train.launch.initial_fit import check_initial
from dalle2_train.networks.decoder import DecoderConfig
from dalle2_train.networks.prior import PriorConfig
from dalle2_train.training.decoder import DecoderModelConfig
from dalle2_train.training.prior import PriorModelConfig

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers'

WEIGHTS = "diffusion_pytorch_model.safetensors"
ONE_STEP = ("training.num_steps=1", "training.sample_every_steps=0", "optimizer.learning_rate=0.0")
KARLO_LIKE = (
    "model.network.low_size=16",
    "model.network.high_size=32",
    "model.network.channels=[32, 64]",
    "model.network.num_resnets=1",
    "model.network.num_groups=32",
    "model.objective={prediction_type: epsilon}",
    "data.image_size=32",
)
PRIOR = PriorConfig(embed_dim=32, num_text_tokens=16, depth=2, num_heads=2, head_dim=18)
DECODER = DecoderConfig(
    image_size=16,
    channels=(32, 64, 96),
    num_resnets=1,
    attention=(False, True, True),
    head_dim=16,
    embed_dim=32,
    context_dim=40,
)


@pytest.fixture(scope="session")
def theirs(tmp_path_factory) -> Path:
    return karlo_folders.write_pipeline(tmp_path_factory.mktemp("theirs") / "karlo")


@pytest.fixture(scope="session")
def imported(theirs, tmp_path_factory) -> str:
    return import_diffusers(str(theirs), str(tmp_path_factory.mktemp("ours") / "karlo")).path


@pytest.mark.parametrize("source", ["release", "part", "last", "diffusers"])
def test_an_upsampler_begins_with_karlos(make_job, theirs, imported, source):
    uri = {"release": imported, "part": f"{imported}/upsampler", "last": f"{imported}/upsampler/last",
           "diffusers": str(theirs)}[source]  # fmt: skip
    job = make_job("run", *KARLO_LIKE, *ONE_STEP, init_from=uri)
    train(job)
    manifest, state = open_model(job.run_uri)
    expected = load_file(theirs / f"super_res_{'last' if source == 'last' else 'first'}" / WEIGHTS)
    assert state.keys() == expected.keys() and all(state[name].equal(expected[name]) for name in expected)
    assert manifest.init_from == initial_digest(uri, "upsampler")
    assert train(job).resumed_from == 1


def test_fine_tuning_goes_on_from_what_was_learned(make_job):
    settings = ("training.sample_every_steps=0", "optimizer.schedule=constant", "optimizer.warmup_steps=0")
    first = make_job("first", "training.num_steps=30", *settings)
    train(first)
    tuned = make_job("tuned", "training.num_steps=4", *settings, init_from=first.run_uri)
    train(tuned)
    begun, anew = losses(tuned.run_uri), losses(first.run_uri)
    assert begun[0] < anew[0]


def test_what_does_not_fit_is_said_with_the_remedy(make_job, imported):
    job = make_job("run", *KARLO_LIKE, "model.network.channels=[32, 32]", *ONE_STEP, init_from=imported)
    with pytest.raises(InputError) as caught:
        train(job)
    told = str(caught.value)
    assert "of another shape: " in told and "more" in told
    assert "--set model.network.channels=[32,64]" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 4, "head_dim": 9}, r"num_heads is 2 there.*--set model.network.num_heads=2"),
        ({"depth": 3}, r"missing: transformer_blocks\.2\..* and \d+ more\).*--set model.network.depth=2"),
        ({"depth": 1}, r"unexpected: transformer_blocks\.1\."),
    ],
)  # fmt: skip
def test_a_prior_of_another_shape(theirs, imported, change, message):
    for uri in (str(theirs), imported):
        model = PriorModelConfig(replace(PRIOR, **change))
        with pytest.raises(InputError, match=message):
            check_initial(uri, open_initial(uri, "prior"), model, None)


@pytest.mark.parametrize(
    ("family", "model", "message"),
    [
        ("prior", PriorModelConfig(PRIOR, objective=ObjectiveConfig("epsilon")),
         r"objective\.prediction_type is sample there, epsilon in the recipe.*"
         r"with --set model\.objective\.prediction_type=sample$"),
        ("decoder", DecoderModelConfig(DECODER, schedule=ScheduleConfig("linear", 500)),
         r"schedule\.name is cosine there, linear in the recipe; schedule\.num_steps is 1000 there, 500 in the recipe.*"
         r"with --set model\.schedule\.name=cosine --set model\.schedule\.num_steps=1000$"),
        ("prior", PriorModelConfig(PRIOR, embedding_scale=2.0),
         r"embedding_scale is null there, 2\.0 in the recipe.*with --set model\.embedding_scale=null$"),
    ],
)  # fmt: skip
def test_weights_that_would_mean_something_else_are_refused(imported, family, model, message):
    """No shape tells of it, in a diffusers' decoder not even of the learned variance."""
    with pytest.raises(InputError, match=message):
        check_initial(imported, open_initial(imported, family), model, None)


def test_a_priors_scale_stands_in_its_weights(imported):
    found = open_initial(imported, "prior")
    scaled = {"clip_mean": torch.zeros(1, 32), "clip_std": torch.full((1, 32), 1 / 17.2)}
    paper = Initial(found.manifest, found.state | scaled)
    check_initial(imported, paper, PriorModelConfig(PRIOR, embedding_scale=17.2), None)
    for other in (None, 17.3):
        with pytest.raises(InputError, match=r"scale is 17\.2 there.*--set model\.embedding_scale=17\.2$"):
            check_initial(imported, paper, PriorModelConfig(PRIOR, embedding_scale=other), None)
    unknown = Initial(found.manifest, found.state | {"clip_std": torch.zeros(1, 32)})
    check_initial(imported, unknown, PriorModelConfig(PRIOR, embedding_scale=17.2), None)


def test_what_weights_learn_anew_is_told_in_a_line(imported, capsys):
    found = open_initial(imported, "decoder")
    check_initial(imported, found, DecoderModelConfig(DECODER), None)
    assert capsys.readouterr().err == ""
    model = DecoderModelConfig(DECODER, objective=ObjectiveConfig("epsilon", weighting="min_snr"))
    check_initial(imported, found, model, None)
    assert capsys.readouterr().err == (
        f"--init-from {imported}: objective.learned_variance is true there, false in the recipe; the weights learn it "
        "anew, unless you --set model.objective.learned_variance=true\n"
    )
    # Of an older version, which knew no zero_terminal_snr.
    older = open_initial(imported, "prior")
    del older.manifest.config["schedule"]["zero_terminal_snr"]
    check_initial(imported, older, PriorModelConfig(PRIOR), None)
    assert capsys.readouterr().err == ""
    check_initial(imported, older, PriorModelConfig(PRIOR, ScheduleConfig(zero_terminal_snr=True)), None)
    assert "zero_terminal_snr is false there, true in the recipe" in capsys.readouterr().err


def test_a_refusal_leaves_nothing_behind(make_job, imported, tmp_path):
    settings = ("model.objective.prediction_type=sample", "training.sample_every_steps=0")
    job = make_job("run", *KARLO_LIKE, *settings, init_from=imported, storage=str(tmp_path / "runs"))
    for start in (check, train):
        with pytest.raises(InputError, match=r"--set model\.objective\.prediction_type=epsilon"):
            start(job, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_same_weights_have_one_digest_imported_or_not(theirs, imported):
    """The network of an upsampler's last step, which an import has beside it, begins no training."""
    for family in ("prior", "decoder", "upsampler"):
        assert initial_digest(imported, family) == initial_digest(str(theirs), family)
        ours, direct = open_initial(imported, family), open_initial(str(theirs), family)
        assert all(value.equal(direct.state[name]) for name, value in ours.state.items())


def test_the_clip_must_be_the_one_it_was_trained_with(imported, tmp_path):
    initial = open_initial(imported, "decoder")
    half = load_clip(f"{imported}/clip")
    other = load_clip(save_tiny_clip(tmp_path / "other"))
    check_initial(imported, initial, DecoderModelConfig(DECODER), half)
    with pytest.raises(InputError, match=f"trained with the CLIP {half.fingerprint}.*{other.fingerprint}"):
        check_initial(imported, initial, DecoderModelConfig(DECODER), other)


def test_a_family_that_is_not_there(make_job, theirs, imported, tmp_path):
    clip = save_tiny_clip(tmp_path / "clip")
    shutil.rmtree(shutil.copytree(imported, tmp_path / "lacking") / "upsampler")
    for uri, message in [
        (str(tmp_path / "nowhere"), "no such folder"),
        (str(tmp_path / "lacking"), "this release has no upsampler"),
        (f"{imported}/prior", "it is a prior, the recipe trains an upsampler; give an upsampler"),
        (clip, "no model here"),
    ]:
        with pytest.raises(InputError, match=message):
            train(make_job("run", *KARLO_LIKE, *ONE_STEP, init_from=uri))


def sized(**more: int) -> list[str]:
    sizes = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__} | more
    return [f"model.encoder.{name}={value}" for name, value in sizes.items()]


def test_a_clip_begins_with_a_pretrained_folder(make_job, tmp_path):
    """Its own activation and its own tokenizer too, which the recipe does not say."""
    folder = tmp_path / "pretrained"
    save_tiny_clip(folder)
    model = CLIPModel.from_pretrained(folder)
    for half in (model.config.text_config, model.config.vision_config):
        half.hidden_act = "quick_gelu"
    model.save_pretrained(folder)
    settings = ["data.image_size=16", "data.block_size=4", "training.global_batch_size=8", *ONE_STEP]
    job = make_job("run", *settings, *sized(), family="clip", init_from=str(folder))
    train(job)
    pretrained, trained = load_clip(str(folder)), load_clip(job.run_uri)
    assert trained.fingerprint == pretrained.fingerprint
    assert open_model(job.run_uri)[0].init_from == pretrained.fingerprint
    assert train(job).resumed_from == 1
    with pytest.raises(
        InputError, match=r"its sizes are not the recipe's; .*--set model.encoder.vision_depth=1"
    ):
        train(make_job("other", *settings, *sized(vision_depth=2), family="clip", init_from=str(folder)))
    half = tmp_path / "half"
    CLIPTextModelWithProjection.from_pretrained(folder).save_pretrained(half)
    pretrained.tokenizer.save_pretrained(half)
    with pytest.raises(InputError, match="text half alone"):
        train(make_job("half-run", *settings, *sized(), family="clip", init_from=str(half)))
