"""Views against plain loops, against Pillow, and against shifts and turns done by hand."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from sklearn_npll._neural import _views
from sklearn_npll._neural._views import (
    STRONG_OPERATIONS,
    FeatureViews,
    ImageViews,
    RandomTable,
    cutout,
    random_crop_flip,
    random_strong_operation,
    strong_operation,
)

close = torch.testing.assert_close


@pytest.fixture
def strength(monkeypatch):
    """Set the random strength of the operations."""

    def set_strength(value):
        monkeypatch.setattr(
            _views, "uniform", lambda low, high, n, like: torch.full((n, 1, 1, 1), value)
        )

    return set_strength


def grey_levels(images):
    """Float images in [0, 1] as uint8 levels."""
    return (images * 255).round().to(torch.uint8)


# -- crop, flip, cutout ------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
def test_every_crop_is_a_shift_of_the_image_and_all_occur(flip):
    height, width, padding, n = 4, 3, 2, 2000
    image = torch.arange(1, 2 * height * width + 1, dtype=torch.uint8).view(2, height, width)
    views = random_crop_flip(image.expand(n, -1, -1, -1), padding, flip)
    assert views.dtype == torch.uint8
    possible = {}
    for dy in range(-padding, padding + 1):
        for dx in range(-padding, padding + 1):
            for mirrored in (False, True):
                crop = torch.zeros_like(image)
                for i in range(height):
                    for j in range(width):
                        if 0 <= i + dy < height and 0 <= j + dx < width:
                            crop[:, i, j] = image[:, i + dy, j + dx]
                crop = crop.flip(2) if mirrored else crop
                possible[crop.numpy().tobytes()] = mirrored
    # nearly all shifts look different from each other
    assert len(possible) == 50
    seen = [v.numpy().tobytes() for v in views]
    assert set(seen) <= set(possible)
    mirrored = np.mean([possible[s] for s in seen])
    if flip:
        assert set(seen) == set(possible)
        assert 0.45 < mirrored < 0.55
    else:
        assert len(set(seen)) == 25
        assert mirrored == 0


def test_crop_without_padding_or_flip_is_the_image():
    images = torch.rand(3, 3, 6, 5)
    close(random_crop_flip(images, 0, False), images)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_cutout_against_a_loop(size):
    height, width = 5, 4
    possible = set()
    for centre_y in range(height):
        for centre_x in range(width):
            keep = torch.ones(height, width)
            for i in range(centre_y - size // 2, centre_y - size // 2 + size):
                for j in range(centre_x - size // 2, centre_x - size // 2 + size):
                    if 0 <= i < height and 0 <= j < width:
                        keep[i, j] = 0
            possible.add(keep.numpy().tobytes())
    views = cutout(torch.ones(1000, 2, height, width), size)
    close(views[:, 0], views[:, 1])
    assert {v.numpy().tobytes() for v in views[:, 0]} == possible


def test_cutout_keeps_other_pixels_and_size_0_all():
    images = torch.rand(20, 3, 8, 8) + 0.1
    views = cutout(images, 4)
    assert ((views == images) | (views == 0)).all()
    close(cutout(images, 0), images)


# -- strong operations -------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRONG_OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_operations_keep_shape_range_and_input(name, channels):
    images = torch.rand(16, channels, 9, 8)
    before = images.clone()
    views = strong_operation(images, name)
    assert views.shape == images.shape
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1
    close(images, before)
    unchanged = name == "identity" or (name == "color" and channels == 1)
    assert torch.allclose(views, images) == unchanged


@pytest.mark.parametrize("name", ["brightness", "contrast", "rotate", "shear_x", "translate_y"])
def test_strength_differs_between_the_images_of_a_batch(name):
    images = torch.rand(1, 3, 9, 9).expand(8, -1, -1, -1).contiguous()
    views = strong_operation(images, name)
    assert len({v.numpy().tobytes() for v in views}) > 4


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", STRONG_OPERATIONS)
def test_constant_images(name, value):
    """Nothing divides by a range of 0, and there is nothing to stretch or equalise."""
    views = strong_operation(torch.full((4, 3, 6, 6), value), name)
    assert views.isfinite().all()
    if name in ("autocontrast", "color", "contrast", "equalize", "identity", "sharpness"):
        close(views, torch.full((4, 3, 6, 6), value))


def test_autocontrast_like_pillow():
    level = torch.randint(40, 200, (8, 8), dtype=torch.uint8)
    expected = np.asarray(ImageOps.autocontrast(Image.fromarray(level.numpy()))).astype(int)
    view = grey_levels(strong_operation(level.view(1, 1, 8, 8) / 255, "autocontrast"))
    assert np.abs(view[0, 0].numpy() - expected).max() <= 1  # Pillow rounds down


def test_equalize_like_pillow():
    # 52 levels of 20 pixels each: (1040 - 20) / 255 is whole, so Pillow's steps are exact
    level = torch.arange(52, dtype=torch.uint8).mul(3).repeat_interleave(20)
    level = level[torch.randperm(1040)].view(26, 40)
    expected = np.asarray(ImageOps.equalize(Image.fromarray(level.numpy())))
    view = grey_levels(strong_operation(level.view(1, 1, 26, 40) / 255, "equalize"))
    np.testing.assert_array_equal(view[0, 0].numpy(), expected)


def test_equalize_by_hand():
    # per channel: share of the other pixels that are at most as bright; darkest 0, brightest 1
    images = torch.tensor([[[10, 10, 20], [30, 30, 30]], [[5, 5, 5], [5, 5, 9]]]) / 255.0
    view = strong_operation(images[None], "equalize")
    expected = torch.tensor([[[0, 0, 1 / 4], [1, 1, 1]], [[0, 0, 0], [0, 0, 1.0]]])
    close(view[0], expected)


def test_posterize_like_pillow():
    level = torch.arange(256, dtype=torch.uint8).view(16, 16)
    possible = {
        np.asarray(ImageOps.posterize(Image.fromarray(level.numpy()), bits)).tobytes(): bits
        for bits in range(4, 9)
    }
    views = grey_levels(strong_operation((level / 255).expand(50, 1, -1, -1), "posterize"))
    assert {possible[v.numpy().tobytes()] for v in views[:, 0]} == {4, 5, 6, 7, 8}


@pytest.mark.parametrize("name", ["brightness", "color", "contrast"])
def test_blends_like_pillow(name, strength):
    level = torch.randint(256, (7, 9, 3), dtype=torch.uint8)
    enhance = getattr(ImageEnhance, name.capitalize())(Image.fromarray(level.numpy()))
    for factor in (0.05, 0.5, 1.6):
        strength(factor)
        view = strong_operation(level.permute(2, 0, 1)[None] / 255, name)[0].permute(1, 2, 0)
        expected = np.asarray(enhance.enhance(factor)).astype(int)
        # Pillow rounds the grey image and the result
        assert np.abs(grey_levels(view).numpy() - expected).max() <= 2


def test_sharpness(strength):
    images = torch.zeros(1, 1, 5, 5)
    images[0, 0, 2, 2] = 0.9
    strength(0.5)
    view = strong_operation(images, "sharpness")[0, 0]
    # half way to the mean of the 3 x 3 neighbourhood, 0.1
    assert view[2, 2].item() == pytest.approx(0.5)
    assert view[1, 1].item() == pytest.approx(0.05)
    assert view[0, 0].item() == 0


def test_solarize(strength):
    strength(0.5)
    images = torch.tensor([0.1, 0.5, 0.6, 1.0]).view(1, 1, 2, 2)
    expected = torch.tensor([0.1, 0.5, 0.4, 0.0]).view(1, 1, 2, 2)
    close(strong_operation(images, "solarize"), expected)


def test_translate_moves_by_a_share_of_the_side(strength):
    images = torch.rand(2, 3, 10, 20)
    strength(0.3)
    expected = torch.zeros_like(images)
    expected[..., :14] = images[..., 6:]
    close(strong_operation(images, "translate_x"), expected)
    expected = torch.zeros_like(images)
    expected[:, :, :7] = images[:, :, 3:]
    close(strong_operation(images, "translate_y"), expected)


def test_shear(strength):
    images = torch.rand(2, 3, 21, 21)
    strength(0.3)
    for name, view, image in (
        ("shear_x", strong_operation(images, "shear_x"), images),
        ("shear_y", strong_operation(images, "shear_y").mT, images.mT),
    ):
        close(view[:, :, 10], image[:, :, 10], msg=name)  # the centre line stays
        # 10 lines off the centre: 0.3 * 10 = 3 pixels
        close(view[:, :, 20, :18], image[:, :, 20, 3:], msg=name)
        assert not view[:, :, 20, 18:].any()
        close(view[:, :, 0, 3:], image[:, :, 0, :18], msg=name)


def test_rotate(strength):
    images = torch.rand(2, 3, 9, 9)
    strength(0.0)
    close(strong_operation(images, "rotate"), images)
    strength(0.9)  # three times the largest strength of 30 degrees: a right angle
    close(strong_operation(images, "rotate"), images.rot90(1, (2, 3)))


def test_unknown_operation():
    with pytest.raises(ValueError, match="unknown operation 'blur'; choose from"):
        strong_operation(torch.rand(1, 1, 4, 4), "blur")


def test_each_image_gets_its_own_operation(monkeypatch):
    codes = {name: (i + 1) / 100 for i, name in enumerate(STRONG_OPERATIONS)}
    monkeypatch.setattr(_views, "strong_operation", lambda x, name: x + codes[name])
    images = torch.arange(1400.0).view(1400, 1, 1, 1)
    added = (random_strong_operation(images) - images).view(-1)
    counts = torch.bincount((added * 100).round().long(), minlength=15)
    assert counts[0] == 0
    # 100 of each expected, with a deviation of ten
    assert (counts[1:] > 60).all()
    assert (counts[1:] < 140).all()


# -- views of a store --------------------------------------------------------------------------

STORE = np.random.default_rng(0).integers(0, 256, (12, 16, 24, 3), dtype=np.uint8)


def image_views(images=STORE, **options):
    options = {
        "flip": True,
        "cutout": 8,
        "operations": True,
        "weak_transform": None,
        "strong_transform": None,
        "device": "cpu",
        **options,
    }
    return ImageViews(images, **options)


def test_plain_images(tmp_path):
    rows = torch.tensor([3, 0, 3])
    expected = torch.from_numpy(STORE[[3, 0, 3]].astype(np.float32) / 255).permute(0, 3, 1, 2)
    assert len(image_views()) == 12
    close(image_views().plain(rows), expected)
    np.save(tmp_path / "store.npy", STORE)
    mapped = np.load(tmp_path / "store.npy", mmap_mode="r")
    close(image_views(mapped).plain(rows), expected)


@pytest.mark.parametrize(
    "side, padding", [((28, 28), 4), ((32, 32), 4), ((64, 64), 8), ((16, 24), 2)]
)
def test_padding_is_an_eighth_of_the_shorter_side(side, padding):
    assert image_views(np.zeros((2, *side, 1), np.uint8)).padding == padding


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_image_views_are_seeded_and_vary(kind):
    views, rows = image_views(), torch.arange(12)
    torch.manual_seed(3)
    first = getattr(views, kind)(rows)
    assert first.shape == (12, 3, 16, 24)
    assert first.dtype == torch.float32
    assert 0 <= first.min() <= first.max() <= 1
    second = getattr(views, kind)(rows)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    close(getattr(views, kind)(rows), first)


def test_strong_view_is_a_weak_view_with_cutout_and_operations_on_request():
    rows = torch.arange(12)
    views = image_views(cutout=0, operations=False)
    torch.manual_seed(0)
    weak = views.weak(rows)
    torch.manual_seed(0)
    close(views.strong(rows), weak)
    torch.manual_seed(0)
    cut = image_views(operations=False).strong(rows)
    assert ((cut == weak) | (cut == 0)).all()
    assert (cut != weak).any()
    torch.manual_seed(0)
    changed = image_views(cutout=0).strong(rows)
    assert (changed != weak).flatten(1).any(1).sum() >= 6


def test_flip_off():
    # one bright column at the left edge stays in the left half
    images = np.zeros((100, 16, 16, 1), np.uint8)
    images[:, :, 3] = 255
    views = image_views(images, flip=False).weak(torch.arange(100))
    assert not views[..., 8:].any()
    assert image_views(images, flip=True).weak(torch.arange(100))[..., 8:].any()


def test_own_transforms_of_images():
    rows = torch.tensor([1, 2])
    weak = image_views(weak_transform=lambda x: x / 2, cutout=0, operations=False)
    close(weak.weak(rows), weak.plain(rows) / 2)
    close(weak.strong(rows), weak.plain(rows) / 2)  # strong views are made of weak ones
    strong = image_views(strong_transform=lambda x: 1 - x)
    close(strong.strong(rows), 1 - strong.plain(rows))


FEATURES = np.random.default_rng(0).normal([0, 5, 3], [1, 10, 0], (4000, 3))


def feature_views(**options):
    options = {
        "weak_noise": 0.1,
        "strong_noise": 0.2,
        "dropout": 0.25,
        "weak_transform": None,
        "strong_transform": None,
        "device": "cpu",
        **options,
    }
    return FeatureViews(FEATURES, **options)


def test_noise_is_in_units_of_each_features_deviation():
    views, rows = feature_views(), torch.arange(4000)
    plain = torch.from_numpy(FEATURES).float()
    assert len(views) == 4000
    close(views.plain(rows), plain)
    noise = views.weak(rows) - plain
    close(noise.std(0), torch.tensor([0.1, 1.0, 0.0]), atol=0, rtol=0.06)  # a constant has none
    assert noise.mean(0).abs().max() < 0.06
    noise = feature_views(dropout=0.0).strong(rows) - plain
    close(noise.std(0), torch.tensor([0.2, 2.0, 0.0]), atol=0, rtol=0.06)


def test_dropped_features_become_their_mean():
    views = feature_views(strong_noise=0.0)
    plain, strong = views.plain(torch.arange(4000)), views.strong(torch.arange(4000))
    mean = plain.mean(0)
    dropped = strong == mean
    assert ((strong == plain) | dropped).all()
    share = dropped[:, :2].float().mean(0)
    assert ((share - 0.25).abs() < 4 * math.sqrt(0.25 * 0.75 / 4000)).all()
    assert not (views.weak(torch.arange(4000)) == mean)[:, :2].any()


def test_noise_is_read_from_random_places_of_one_table():
    views, rows = feature_views(dropout=0.0), torch.arange(200)

    def noise(seed):
        torch.manual_seed(seed)
        noise = views.weak(rows) - views.plain(rows)
        return (noise / views.scale / views.weak_noise)[:, :2]  # a constant feature has none

    first, values = noise(0), views._normal.values
    close(noise(0), first, atol=0, rtol=0)
    assert not torch.isclose(first, noise(1)).all(dim=1).any()
    torch.manual_seed(0)
    start = int(torch.randint(len(values) - 600, ()))
    close(first, values[start : start + 600].view(200, 3)[:, :2], atol=1e-4, rtol=1e-4)
    many = torch.cat([noise(seed).flatten() for seed in range(300)])
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
    again = feature_views(dropout=0.0)._normal.values  # the same in each training
    close(again, values, atol=0, rtol=0)


def test_batches_too_large_for_the_table_are_drawn_anew():
    table = RandomTable(torch.randn, torch.zeros(4, 2))
    batch = torch.zeros(20_000, 2)
    torch.manual_seed(0)
    numbers = table.like(batch)
    torch.manual_seed(0)
    close(numbers, torch.randn(20_000, 2), rtol=0, atol=0)


def test_a_table_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    RandomTable(torch.rand, torch.zeros(4, 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_own_transforms_of_features():
    rows = torch.tensor([1, 2])
    views = feature_views(weak_transform=lambda x: x + 1, strong_transform=lambda x: x * 2)
    close(views.weak(rows), views.plain(rows) + 1)
    close(views.strong(rows), views.plain(rows) * 2)
