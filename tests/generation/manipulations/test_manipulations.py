"""Variations, interpolations and text diffs: what meets in which column, and that batches change nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial import geometric_slerp
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.manipulations.drawing import Session, draw, draw_small, keyed_noise
from dalle2_train.generation.manipulations.interpolation import interpolate
from dalle2_train.generation.manipulations.latents import InversionConfig, Latents, find_latents
from dalle2_train.generation.manipulations.pictures import Picture
from dalle2_train.generation.manipulations.sheet import Sheet
from dalle2_train.generation.manipulations.text_diff import text_direction, textdiff, turn
from dalle2_train.generation.manipulations.variations import vary
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.unclip import Unclip

PLAIN = InversionConfig(0)
A_LEVEL = 2  # of 255: float32 in batches of another size


def same(ours: Tensor, theirs: Tensor) -> bool:
    return int((ours.int() - theirs.int()).abs().max()) <= A_LEVEL


def differ(ours: Tensor, theirs: Tensor) -> bool:
    return int((ours.int() - theirs.int()).abs().max()) > 10 * A_LEVEL


def reconstruction(unclip: Unclip, picture: Picture, config: GenerationConfig) -> Tensor:
    return vary(unclip, picture, [0.5], 1, config, PLAIN).rows["noise 0"][1]


def test_variations_begin_at_the_reconstruction_and_leave_it_with_eta(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    sheet = vary(unclip, pictures[0], [1e-6, 1.0], 2, fast, PLAIN)
    assert sheet.columns == ["picture", "eta 0", "eta 1e-06", "eta 1"]
    for row in sheet.rows.values():
        picture, eta_0, almost, eta_1 = row
        assert torch.equal(picture, pictures[0].full)
        assert differ(eta_1, eta_0)
        # The upsampler's noise is its own: a row's, whatever eta.
        assert same(almost, eta_0) or row is not sheet.rows["noise 0"]
    assert differ(sheet.rows["noise 0"][3], sheet.rows["noise 1"][3])


def test_batches_and_order_change_no_variation(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    whole = vary(unclip, pictures[0], [0.5, 1.0], 3, fast, PLAIN)
    small = vary(unclip, pictures[0], [1.0], 3, replace(fast, batch_size=2), PLAIN)
    for name, row in small.rows.items():
        assert same(row[2], whole.rows[name][3])
    other = vary(unclip, pictures[0], [1.0], 3, fast, PLAIN, seed=1)
    assert differ(other.rows["noise 0"][2], whole.rows["noise 0"][3])


def test_the_facts_are_of_the_decoders_picture(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    facts = vary(unclip, pictures[0], [0.5], 1, fast, PLAIN).facts
    latents = find_latents(unclip, pictures[:1], fast.decoder, PLAIN, lambda: None)
    ours = draw_small(Session(unclip, fast, 0, lambda: None), latents, torch.zeros(1, dtype=torch.int64))
    errors = ours[0].numpy().astype(np.float64) - (pictures[0].small.numpy() / 127.5 - 1)
    expected = 10 * np.log10(4 / np.square(errors).mean())
    assert facts["reconstruction_psnr_db"] == pytest.approx(expected, abs=0.01)
    assert facts["x_T_std"] == pytest.approx(float(latents.x_T.std()), rel=1e-4)


def test_interpolations_end_at_the_reconstructions(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    sheet = interpolate(unclip, *pictures, 3, replace(fast, batch_size=2), PLAIN)
    assert sheet.columns == ["picture", "0.00", "0.50", "1.00", "picture"]
    row = sheet.rows[""]
    assert torch.equal(row[0], pictures[0].full) and torch.equal(row[-1], pictures[1].full)
    assert same(row[1], reconstruction(unclip, pictures[0], fast))
    assert same(row[3], reconstruction(unclip, pictures[1], fast))
    assert differ(row[2], row[1]) and differ(row[2], row[3])


def test_with_a_fixed_noise_only_the_embedding_moves(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    row = interpolate(unclip, *pictures, 2, fast, None, seed=3).rows[""]
    session, first = Session(unclip, fast, 3, lambda: None), torch.zeros(1, dtype=torch.int64)
    for made, picture in zip(row[1:3], pictures, strict=True):
        latents = Latents(unclip.clip.encode_image(picture.for_clip[None]), keyed_noise(session, first))
        assert same(made, to_uint8(draw(session, latents, first).image)[0])


def half_way(start: Tensor, end: Tensor) -> Tensor:
    """Between two latents (1, …): SciPy's direction, the length on a line."""
    ends = [x.double().flatten().numpy() for x in (start, end)]
    lengths = [np.linalg.norm(x) for x in ends]
    direction = geometric_slerp(*(x / length for x, length in zip(ends, lengths, strict=True)), 0.5)
    return torch.from_numpy(sum(lengths) / 2 * direction).to(start).view_as(start)


def test_half_way_between_two_pictures_both_latents_are(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    session, index = Session(unclip, fast, 3, lambda: None), torch.zeros(1, dtype=torch.int64)
    embeds, noises = find_latents(unclip, pictures, fast.decoder, PLAIN, session.tick)
    embed, noise = half_way(embeds[:1], embeds[1:]), half_way(noises[:1], noises[1:])

    def drawn(*latents: Tensor) -> Tensor:
        return to_uint8(draw(session, Latents(*latents), index).image)[0]

    made = interpolate(unclip, *pictures, 3, fast, PLAIN, seed=3).rows[""][2]
    assert same(made, drawn(embed, noise))
    assert differ(made, drawn(embed, noises[:1])) and not same(made, drawn(embeds[:1], noise))
    made = interpolate(unclip, *pictures, 3, fast, None, seed=3).rows[""][2]
    assert same(made, drawn(embed, keyed_noise(session, index)))


def test_a_text_diff_turns_by_a_share_of_the_angle_and_keeps_the_length(unclip: Unclip) -> None:
    embed = torch.randn(3, unclip.clip.embed_dim, generator=torch.Generator().manual_seed(0))
    direction = text_direction(unclip.clip, "a red heart", "a small cat")
    texts = unclip.clip.encode_captions(["a red heart", "a small cat"]).text_embed.double().numpy()
    units = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    np.testing.assert_allclose(
        direction[0].numpy(), (units[1] - units[0]) / np.linalg.norm(units[1] - units[0]), atol=1e-6
    )
    thetas = torch.tensor([0.0, 0.25, 1.0])
    turned = turn(embed, direction, thetas)
    assert torch.equal(turned[0], embed[0])
    torch.testing.assert_close(turned.norm(dim=1), embed.norm(dim=1))
    torch.testing.assert_close(F.normalize(turned[2:], dim=1), direction.float())
    before, after = (F.cosine_similarity(x, direction.float(), dim=1).acos()[1] for x in (embed, turned))
    torch.testing.assert_close(after, 0.75 * before)


def test_text_diffs_begin_at_the_reconstruction(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    direction = text_direction(unclip.clip, "a red heart", "a small cat")
    sheet = textdiff(unclip, pictures[0], direction, [0.0, 0.5], replace(fast, batch_size=1), PLAIN)
    assert sheet.columns == ["picture", "theta 0.00", "theta 0.50"]
    assert same(sheet.rows[""][1], reconstruction(unclip, pictures[0], fast))
    assert differ(sheet.rows[""][2], sheet.rows[""][1])


def test_text_diffs_keep_the_pictures_own_noise(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    direction = text_direction(unclip.clip, "a red heart", "a small cat")
    session, index = Session(unclip, fast, 0, lambda: None), torch.zeros(1, dtype=torch.int64)
    own = find_latents(unclip, pictures[:1], fast.decoder, PLAIN, session.tick)
    embed = half_way(own.image_embed, own.image_embed.norm() * direction.float())
    made = textdiff(unclip, pictures[0], direction, [0.5], fast, PLAIN).rows[""][1]
    assert same(made, to_uint8(draw(session, Latents(embed, own.x_T), index).image)[0])
    other = Latents(embed, keyed_noise(session, index))
    assert differ(made, to_uint8(draw(session, other, index).image)[0])


def test_progress_counts_every_forward(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    seen: list[tuple[int, int]] = []
    fast = replace(fast, batch_size=2)
    vary(unclip, pictures[0], [0.5], 3, fast, InversionConfig(1), progress=lambda *told: seen.append(told))
    total = 2 * 10 - 1 + (10 + 2) + 2 * (10 + 2)
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_what_makes_no_sense_is_named(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    noisy = replace(fast, decoder=replace(fast.decoder, eta=0.5))
    with pytest.raises(InputError, match=r"decoder\.eta=0\.5"):
        vary(unclip, pictures[0], [0.5], 1, noisy, PLAIN)
    with pytest.raises(InputError, match="each above 0"):
        vary(unclip, pictures[0], [0.0], 1, fast, PLAIN)
    with pytest.raises(InputError, match="at least its 2 ends"):
        interpolate(unclip, *pictures, 1, fast, PLAIN)
    with pytest.raises(InputError, match="the same to CLIP"):
        text_direction(unclip.clip, "a cat", "a cat")
    with pytest.raises(InputError, match="give 0 to 1"):
        textdiff(unclip, pictures[0], torch.ones(1, 32), [1.5], fast, PLAIN)


def test_a_sheet_shows_all_of_it(unclip: Unclip, pictures: list[Picture]) -> None:
    row = torch.stack([pictures[0].full, pictures[1].full])
    image = Sheet({"a": row, "b": row}, ["one", "two"]).image()
    width, height = image.size
    assert width > 2 * 192 and height > 2 * 192
    # Names in another order are another picture: all are written.
    assert image.tobytes() != Sheet({"a": row, "b": row}, ["two", "one"]).image().tobytes()
    assert image.tobytes() != Sheet({"b": row, "a": row}, ["one", "two"]).image().tobytes()
