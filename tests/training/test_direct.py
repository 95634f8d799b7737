"""The direct baseline's update: what the network is shown, what the loss is, and that it learns."""

import numpy as np
import torch
from families import CONTEXT_LENGTH, SETTINGS, random_pictures, spy, train

from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.networks.direct import Direct, DirectConfig
from dalle2_train.networks.text_encoder import TextEncoderConfig
from dalle2_train.training.direct import DirectModule

SIZE = 8
TEXT = TextEncoderConfig(CONTEXT_LENGTH, vocab_size=40, width=32, depth=1, num_heads=2)


def build() -> DirectModule:
    torch.manual_seed(0)
    network = Direct(DirectConfig(TEXT, image_size=SIZE, patch_size=4, depth=1, num_heads=2))
    return DirectModule(network, *SETTINGS)


def batch_of(num_samples: int) -> ClipBatch:
    ids = torch.randint(0, 40, (num_samples, CONTEXT_LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(CONTEXT_LENGTH) < (torch.arange(num_samples) % CONTEXT_LENGTH + 1)[:, None]
    return ClipBatch(torch.arange(num_samples), random_pictures(num_samples, SIZE), ids, mask)


def test_the_loss_is_the_mean_squared_error_of_pixels():
    module, batch = build(), batch_of(5)
    torch.nn.init.normal_(module.network.to_pixels.weight, std=0.1)
    seen = spy(module.network)
    loss = module.compute_loss(batch, 3).loss
    assert torch.equal(seen[0][0], batch.token_ids) and torch.equal(seen[0][1], batch.text_mask)
    with torch.no_grad():
        drawn = module.network(batch.token_ids, batch.text_mask).double().numpy()
    errors = drawn - (batch.image.double().numpy() / 255 * 2 - 1)
    assert np.isclose(loss.item(), (errors**2).mean(), rtol=1e-6)


def test_without_text_to_tell_them_apart_the_best_is_the_mean_picture():
    """A squared error is smallest at the mean: its remainder is the pictures' variance, and no less."""
    module, batch = build(), batch_of(4)
    same = batch._replace(
        token_ids=batch.token_ids[:1].expand(4, -1), text_mask=batch.text_mask[:1].expand(4, -1)
    )
    losses = train(module, same, 300, 3e-3)
    images = batch.image.double().numpy() / 255 * 2 - 1
    floor = ((images - images.mean(axis=0)) ** 2).mean()
    assert floor * 0.999 < losses[-1] < floor * 1.02


def test_with_text_it_learns_every_picture():
    losses = train(build(), batch_of(4), 300, 3e-3)
    assert losses[-1] < 0.02 * losses[0]
