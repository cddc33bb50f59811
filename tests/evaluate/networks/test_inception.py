"""Inception: the same features as torch-fidelity's for the same picture, from weights that are checked and named."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from fairhuman.evaluate.networks.extractor import WeightsError
from fairhuman.evaluate.networks.inception import FILE, SHA256, Inception
from helpers.published_shapes import inception_shapes, inception_state


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(inception_state(), path)
    return path


@pytest.fixture(scope="module")
def extractor(weights: Path) -> Inception:
    return Inception(weights, batch_size=3)


@pytest.fixture(scope="module")
def original(weights: Path) -> Callable[[Image.Image], Tensor]:
    network = FeatureExtractorInceptionV3("original", ["2048"], feature_extractor_weights_path=str(weights))

    def features(image: Image.Image) -> Tensor:
        uint8_bchw = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        features_bd: Tensor = network(uint8_bchw)[0]
        return features_bd

    return features


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, size=(height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(299, 299), (512, 384), (64, 200), (1, 1)])
def test_features_are_those_of_torch_fidelity(
    extractor: Inception, original: Callable[[Image.Image], Tensor], size: tuple[int, int]
) -> None:
    image = picture(*size)
    expected_bd = original(image).numpy()
    found_bd = extractor.extract(extractor.prepare(image)[None], [""])
    assert found_bd.shape == (1, extractor.width) == (1, 2048)
    assert found_bd.dtype == np.float32
    assert expected_bd.std() > 0.01
    assert np.abs(found_bd - expected_bd).max() < 1e-4 * np.abs(expected_bd).max()


def test_a_row_depends_on_its_picture_alone(extractor: Inception) -> None:
    images_bchw = torch.stack([extractor.prepare(picture(width, 300)) for width in (200, 310, 420)])
    together = extractor.extract(images_bchw)
    alone = np.concatenate([extractor.extract(image[None]) for image in images_bchw])
    backwards = extractor.extract(images_bchw.flip(0))[::-1]
    scale = np.abs(together).max()
    assert np.abs(together - alone).max() < 1e-4 * scale
    assert np.abs(together - backwards).max() < 1e-4 * scale
    assert np.abs(together[0] - together[1]).max() > 1e-2 * scale


def test_prepared_pictures_have_one_size(extractor: Inception) -> None:
    image_chw = extractor.prepare(Image.new("RGB", (40, 20), (0, 128, 255)))
    assert image_chw.shape == (3, 299, 299)
    assert image_chw.dtype == torch.float32
    assert image_chw.mean(dim=(1, 2)).tolist() == pytest.approx([-1.0, 0.0, 127 / 128])


def test_other_weights_are_not_called_by_the_name_of_the_published_ones(
    weights: Path, extractor: Inception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (extractor.published, extractor.name) == (False, "inception-other")
    assert SHA256.startswith(FILE.split("-")[-1].removesuffix(".pth"))
    monkeypatch.setattr(
        "fairhuman.evaluate.networks.inception.SHA256", hashlib.sha256(weights.read_bytes()).hexdigest()
    )
    same = Inception(weights)
    assert (same.published, same.name) == (True, "inception-2015")
    assert same.fingerprint == extractor.fingerprint


def test_missing_weights_say_where_they_are(tmp_path: Path) -> None:
    for given in (None, tmp_path / "none.pth"):
        with pytest.raises(WeightsError) as error:
            Inception(given)
        for part in (FILE, "github.com/toshas/torch-fidelity/releases", "inception.weights=PATH"):
            assert part in str(error.value)
    assert str(tmp_path / "none.pth") in str(error.value)


def test_weights_of_something_else_are_refused(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    state = torch.load(weights)
    del state["Mixed_5b.branch1x1.conv.weight"]
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"other\.pth.*Mixed_5b\.branch1x1\.conv\.weight"):
        Inception(path)
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"other\.pth"):
        Inception(path)


def test_the_network_has_the_names_of_the_published_file() -> None:
    """A few names and sizes of the published file, which has a classifier of 1008."""
    found = inception_shapes()
    assert found["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert found["Mixed_7c.branch3x3dbl_3b.bn.running_var"] == (384,)
    assert found["fc.weight"] == (1008, 2048)


def test_bad_arguments_are_refused(weights: Path, extractor: Inception) -> None:
    with pytest.raises(ValueError, match="must be RGB, not RGBA"):
        extractor.prepare(Image.new("RGBA", (10, 10)))
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        Inception(weights, batch_size=0)
