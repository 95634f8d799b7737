"""CLIP's update: the loss against transformers' and over ranks, decay, clamp, saving, and that it learns."""

import math
from dataclasses import replace

import contrastive_rank
import pytest
import tiny_clip
import torch
from families import random, random_pictures, train
from processes import call_in_ranks

from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.encoders import build_clip, load_clip, tokenize, train_tokenizer
from dalle2_train.encoders.pixels import to_pixel_values
from dalle2_train.errors import InputError
from dalle2_train.training.clip import ClipModelConfig, ClipModule
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.contrastive import contrastive_loss

CAPTIONS = [
    "red heart",
    "green apple",
    "waving hand",
    "grinning face",
    "blue car",
    "snow",
    "pig nose",
    "the moon",
]
CONFIG = ClipModelConfig(encoder=replace(tiny_clip.CONFIG, context_length=12))
TRAINING = TrainingConfig(num_steps=10, global_batch_size=8)


@pytest.fixture
def module():
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, 600, 12)
    clip = build_clip(CONFIG.encoder, tokenizer)
    return ClipModule(clip, tokenizer, CONFIG, TRAINING, OptimizerConfig(learning_rate=0.1, weight_decay=0.2))


@pytest.fixture
def batch(module):
    return ClipBatch(torch.arange(8), random_pictures(8, 16), *tokenize(module.tokenizer, CAPTIONS))


def test_loss_equals_transformers(module, batch):
    clip = build_clip(CONFIG.encoder, module.tokenizer)
    state = {name: value.clone() for name, value in clip.state_dict().items()}
    state["logit_scale"] = state["logit_scale"].reshape(1)
    module.network.load_state_dict(state)
    theirs = clip(input_ids=batch.token_ids, pixel_values=to_pixel_values(batch.image, 16), return_loss=True)
    loss, metrics = module.compute_loss(batch, 0)
    torch.testing.assert_close(loss, theirs.loss)
    own = theirs.logits_per_image.argmax(dim=1) == torch.arange(8)
    assert metrics["accuracy"] == own.float().mean()
    torch.testing.assert_close(metrics["inverse_temperature"], torch.tensor(1 / 0.07), rtol=1e-4, atol=0)


def test_embeddings_that_know_nothing_lose_ln_n():
    same = torch.nn.functional.normalize(random(1, 4), dim=-1).expand(10, 4)
    torch.testing.assert_close(
        contrastive_loss(same, same, torch.tensor([5.0])).loss, torch.tensor(math.log(10))
    )


@pytest.mark.parametrize(
    ("world_size", "shard"),
    [
        (2, 2),
        pytest.param(2, 1, marks=pytest.mark.system),
        pytest.param(4, 4, marks=pytest.mark.system),
        pytest.param(4, 2, marks=pytest.mark.system),
    ],
)
def test_sharded_ranks_have_one_process_gradients(tmp_path, world_size, shard):
    codes = call_in_ranks(contrastive_rank.save_gradients, world_size, tmp_path, shard)
    assert codes == [0] * world_size
    found = torch.load(tmp_path / "gradients.pt")
    expected = contrastive_rank.gradients(0, 1, 1)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-9, rtol=1e-9, msg=name)
    assert expected["logit_scale"].abs() > 1e-3


def test_vectors_and_the_temperature_do_not_decay(module):
    optimizer = module.configure_optimizers()
    names = {id(parameter): name for name, parameter in module.network.named_parameters()}
    decay = {
        names[id(parameter)]: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert decay.keys() == set(names.values())
    for name, value in decay.items():
        exempt = (
            "norm" in name
            or name.endswith("bias")
            or name in ("logit_scale", "vision_model.embeddings.class_embedding")
        )
        assert value == (0.0 if exempt else 0.2), name


def test_temperature_is_clamped_after_a_step(module):
    optimizer = module.configure_optimizers()
    module.network.logit_scale.grad = torch.tensor([-1.0])
    with torch.no_grad():
        module.network.logit_scale.fill_(4.59)
    optimizer.step()
    torch.testing.assert_close(module.network.logit_scale.exp(), torch.tensor([100.0]))


def test_released_folder_is_a_clip(module, batch, tmp_path):
    module.write_model(dict(module.network.state_dict()), tmp_path)
    encoder = load_clip(str(tmp_path))
    with torch.no_grad():
        output = module.network(to_pixel_values(batch.image, 16), batch.token_ids)
    normalize = torch.nn.functional.normalize
    torch.testing.assert_close(normalize(encoder.encode_image(batch.image), dim=-1), output.image_embed)
    torch.testing.assert_close(
        normalize(encoder.encode_captions(CAPTIONS).text_embed, dim=-1), output.text_embed
    )


def test_it_learns_a_tiny_batch(module, batch):
    losses = train(module, batch, 40, 3e-3)
    assert losses[0] == pytest.approx(math.log(8), rel=0.5)
    assert losses[-1] < 0.1


def test_micro_batches_are_refused(module):
    training = TrainingConfig(num_steps=10, global_batch_size=8, micro_batch_size=4)
    with pytest.raises(InputError, match="micro_batch_size"):
        ClipModule(
            build_clip(CONFIG.encoder, module.tokenizer),
            module.tokenizer,
            CONFIG,
            training,
            OptimizerConfig(),
        )
