"""Recipes say every setting once, and augmentation does what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from support import draw_face

from ferbatch.commands.train import recipe
from ferbatch.commands.train.augment import Augment, mixed
from ferbatch.commands.train.recipe import FIELDS, Recipe
from ferbatch.core.errors import UsageError
from ferbatch.core.options import DEFAULT_MODEL
from ferbatch.model import registry
from ferbatch.model.weights import read_card, shipped

STILL = Recipe(flip=0.0, rotate=0.0, shift=0.0, zoom=0.0, shear=0.0, brightness=0.0, erase=0.0)


@pytest.mark.parametrize("name", recipe.shipped())
def test_every_shipped_recipe_is_of_a_network_that_can_be_trained(name: str) -> None:
    assert recipe.load(name).model in registry.MODELS


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_model_has_its_recipe_and_the_card_says_the_same(name: str) -> None:
    card, chosen = read_card(name), recipe.load(name)
    assert card.architecture == chosen.model
    assert {**card.arguments} == {"labels": 4, **chosen.arguments}
    shared = {key: value for key, value in card.recipe.items() if key in FIELDS and key != "precision"}
    ours = dataclasses.asdict(chosen)
    assert shared == {key: list(ours[key]) if isinstance(ours[key], tuple) else ours[key] for key in shared}


def test_a_network_by_its_name_has_a_recipe_for_one_collection() -> None:
    for model, name in recipe.OF_MODEL.items():
        assert recipe.choose(None, model) == recipe.load(name)
        assert recipe.load(name).model == model
    assert recipe.choose(None, None) == recipe.choose(None, read_card(DEFAULT_MODEL).architecture)  # it labels, too
    assert recipe.choose("cnn-lite-v2", None).distill_views == "same"
    assert recipe.choose(None, "efficientnet_lite1") == Recipe(model="efficientnet_lite1")
    other = recipe.choose("teacher-b", "cnn", epochs=3, seed=7)
    assert other == dataclasses.replace(recipe.load("teacher-b"), model="cnn", arguments={}, epochs=3, seed=7)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("epoch = 3", "no key 'epoch'; did you mean epochs?"),
        ("colour = 3", "no key 'colour'"),
        ("epochs = 0", "epochs is 0, not 1 or more"),
        ("epochs = 2.5", "epochs is 2.5, not a whole number"),
        ("votes = 1.5", "votes is 1.5, not 0 to 1"),
        ("ema = 1", "ema is 1.0, not 0 to below 1"),
        ('rotate = "far"', "rotate is 'far', not a number"),
        ("frozen = 1", "frozen is 1, not true or false"),
        ("seed = true", "seed is True, not a whole number"),
        ("seed = -1", "seed is -1, not 0 to"),
        ("learning_rate = nan", "learning_rate is nan, not"),
        ('choose = "luck"', "choose is 'luck', not one of accuracy, agreement, sources, loss, last"),
        ("learning_rate = inf", "learning_rate is inf, not"),
        ("batch_size = 1", "batch_size is 1, not 2 or more"),
        ("teachers = [1]", "teachers is [1], not a list of texts"),
        ("epochs = ", "is no recipe: "),
        ('framing = "tight"', "framing is 'tight', not one of whole, levelled, both"),
        ("fill_noise = 0.6\nfill_face = 0.6", "fill_noise and fill_face is 1.2, not 0 to 1"),
        ("sources = {web = 2}", "sources.web is 2, not a table"),
        ("sources = {web = {weigth = 2}}", "no key 'weigth' in sources.web (known: weight, votes, label_smoothing)"),
        ("sources = {web = {votes = 2}}", "sources.web.votes is 2, not 0 to 1"),
        ('sources = {web = {votes = "all"}}', "sources.web.votes is 'all', not a number"),
        ('outputs = "bias"\nmixup = 0.2', "mixup blends images of different sources, so that outputs must be shared"),
    ],
)
def test_what_a_recipe_may_not_say_is_one_sentence(line: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(line)
    with pytest.raises(UsageError) as raised:
        recipe.load(str(tmp_path / "r.toml"))
    assert f"r.toml{'' if 'is no recipe' in sentence else ':'} {sentence}" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(draw_face(seed))) for seed in range(16)])


def augmented(pixels: torch.Tensor, **settings: float) -> torch.Tensor:
    torch.manual_seed(0)
    return Augment(dataclasses.replace(STILL, **settings))(pixels)  # type: ignore[arg-type,no-any-return]


def test_no_augmentation_changes_nothing(pixels: torch.Tensor) -> None:
    assert torch.allclose(augmented(pixels), pixels[:, None] / 255, atol=1e-5)


def test_a_flip_is_the_mirror_image(pixels: torch.Tensor) -> None:
    mirrored = pixels.flip(2)[:, None] / 255
    assert torch.allclose(augmented(pixels, flip=1.0), mirrored, atol=1e-5)
    some = augmented(pixels, flip=0.5)
    of_itself = [torch.allclose(one, image[None] / 255, atol=1e-5) for one, image in zip(some, pixels, strict=True)]
    of_mirror = [torch.allclose(one, image, atol=1e-5) for one, image in zip(some, mirrored, strict=True)]
    assert all(a or b for a, b in zip(of_itself, of_mirror, strict=True))
    assert 0 < sum(of_mirror) < len(pixels)


def middle_of(image: torch.Tensor) -> torch.Tensor:
    """(2,) where the light of an image lies, in pixels from its middle: right, down."""
    at = torch.arange(48) - 23.5
    return torch.stack([(image.sum(0) * at).sum(), (image.sum(1) * at).sum()]) / image.sum()


def spot(x: int, y: int, n: int = 200) -> torch.Tensor:
    image = torch.zeros(n, 48, 48, dtype=torch.uint8)
    image[:, y - 2 : y + 2, x - 2 : x + 2] = 255
    return image


def test_shift_rotation_and_zoom_move_by_what_they_say_and_each_image_its_own_way() -> None:
    shifted = torch.stack([middle_of(one[0]) for one in augmented(spot(24, 24), shift=0.1)])
    assert shifted.abs().max().item() == pytest.approx(4.8, abs=0.3)
    assert len({tuple(row) for row in shifted.tolist()}) == 200
    turned = torch.stack([middle_of(one[0]) for one in augmented(spot(40, 24), rotate=30.0)])
    angles = torch.rad2deg(torch.atan2(turned[:, 1], turned[:, 0]))
    assert angles.abs().max().item() == pytest.approx(30, abs=1.5)
    assert turned.norm(dim=1).numpy() == pytest.approx(np.full(200, 16), abs=0.5)
    zoomed = torch.stack([middle_of(one[0]) for one in augmented(spot(40, 24), zoom=0.25)])
    assert zoomed[:, 0].min().item() == pytest.approx(16 * 0.75, abs=0.4)
    assert zoomed[:, 0].max().item() == pytest.approx(16 * 1.25, abs=0.4)


def test_light_is_changed_by_what_it_says() -> None:
    flat = torch.full((400, 48, 48), 100, dtype=torch.uint8)
    values = augmented(flat, brightness=0.2).mean((1, 2, 3)) * 255
    assert values.min().item() == pytest.approx(80, abs=2)
    assert values.max().item() == pytest.approx(120, abs=2)


def test_a_box_is_erased_of_as_many_images_as_asked_for(pixels: torch.Tensor) -> None:
    many = pixels.repeat(20, 1, 1)
    changed = (augmented(many, erase=0.5) - many[:, None] / 255).abs() > 1e-4
    touched = changed.flatten(1).any(1)
    assert touched.float().mean().item() == pytest.approx(0.5, abs=0.1)
    share = changed[touched].float().mean((1, 2, 3))
    assert share.max() < 0.17  # two fifths of each side
    assert share.min() < 0.05


def test_mixing_keeps_the_targets_sum_and_is_off_at_zero() -> None:
    images, targets = torch.rand(64, 1, 8, 8), torch.eye(4).repeat(16, 1)
    same = mixed(images, targets, 0.0)
    assert same[0] is images
    assert same[1] is targets
    torch.manual_seed(0)
    blended, asked = mixed(images, targets, 1.0)
    assert torch.allclose(asked.sum(1), torch.ones(64))
    shares = {round(value, 4) for value in asked.flatten().tolist()} - {0.0, 1.0}
    assert len(shares) == 2  # of the image and of the other
    share = max(asked[0].tolist())
    others = [(blended[0] - part * images[0]) / (1 - part) for part in (share, 1 - share)]
    assert any(torch.allclose(other, image, atol=1e-4) for other in others for image in images)
