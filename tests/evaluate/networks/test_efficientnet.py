"""EfficientNet-Lite0: real weights, features that don't depend on company, a distance that sees damage."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from fairhuman.evaluate.metrics.distances import measure_frechet
from fairhuman.evaluate.networks.efficientnet import TITLE, EfficientNetLite0


@pytest.fixture(scope="module")
def extractor() -> EfficientNetLite0:
    return EfficientNetLite0()


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Smooth coloured noise of several shapes."""
    generator = np.random.default_rng(seed)
    return [
        Image.fromarray(generator.integers(0, 256, size=(6, 7, 3), dtype=np.uint8)).resize((150 + 40 * i % 200, 130))
        for i in range(count)
    ]


def prepared(extractor: EfficientNetLite0, images: list[Image.Image]) -> Tensor:
    return torch.stack([extractor.prepare(image) for image in images])


def test_features_have_their_shape_type_and_range(extractor: EfficientNetLite0) -> None:
    features_bd = extractor.extract(prepared(extractor, pictures(2)), ["", ""])
    assert features_bd.shape == (2, extractor.width) == (2, 1280)
    assert features_bd.dtype == np.float32
    assert features_bd.min() >= 0
    assert 0.1 < features_bd.max() <= 6
    assert not np.allclose(*features_bd, rtol=0.1)


def test_a_row_depends_on_its_picture_alone(extractor: EfficientNetLite0) -> None:
    images_bchw = prepared(extractor, pictures(4))
    together = extractor.extract(images_bchw)
    alone = np.concatenate([extractor.extract(image[None]) for image in images_bchw])
    backwards = extractor.extract(images_bchw.flip(0))[::-1]
    scale = np.abs(together).max()
    assert np.abs(together - alone).max() < 1e-4 * scale
    assert np.abs(together - backwards).max() < 1e-4 * scale


def test_pooled_features_times_the_last_layer_are_the_networks_own_answer(extractor: EfficientNetLite0) -> None:
    images_bchw = prepared(extractor, pictures(2))
    with torch.inference_mode():
        answer_bc = extractor._network(images_bchw)
        mine_bc = extractor._network._fc(torch.from_numpy(extractor.extract(images_bchw)))
    assert torch.allclose(mine_bc, answer_bc, rtol=1e-4, atol=1e-4)


def test_pixels_become_what_the_training_gave(extractor: EfficientNetLite0) -> None:
    image_chw = extractor.prepare(Image.new("RGB", (30, 50), (255, 127, 0)))
    assert image_chw.shape == (3, 224, 224)
    assert image_chw.dtype == torch.float32
    assert image_chw.mean(dim=(1, 2)).tolist() == pytest.approx([1.0, 0.0, -127 / 128])


def test_the_whole_picture_is_seen(extractor: EfficientNetLite0) -> None:
    pixels = np.zeros((100, 300, 3), dtype=np.uint8)
    pixels[:, :3], pixels[:, -3:] = 255, 255
    image_chw = extractor.prepare(Image.fromarray(pixels))
    assert image_chw[0, 112, 0] > 0
    assert image_chw[0, 112, -1] > 0


def test_a_picture_that_is_not_rgb_is_refused(extractor: EfficientNetLite0) -> None:
    with pytest.raises(ValueError, match="must be RGB, not L"):
        extractor.prepare(Image.new("L", (10, 10)))
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        EfficientNetLite0(batch_size=0)


def test_fingerprints_are_the_same_every_time_and_nothing_is_called_fid(extractor: EfficientNetLite0) -> None:
    assert len(extractor.fingerprint) == 12
    assert EfficientNetLite0().fingerprint == extractor.fingerprint
    assert "fid" not in (TITLE + extractor.name).lower()


def test_the_distance_grows_with_blur(extractor: EfficientNetLite0) -> None:
    images = pictures(6)
    sharp = extractor.extract(prepared(extractor, images))
    distances = []
    for radius in (4, 12, 30):
        blurred = [image.filter(ImageFilter.GaussianBlur(radius)) for image in images]
        distances.append(measure_frechet(sharp, extractor.extract(prepared(extractor, blurred))).value)
    assert measure_frechet(sharp, sharp).value < 1e-6 < 1e-3 < distances[0]
    assert distances == sorted(distances)
