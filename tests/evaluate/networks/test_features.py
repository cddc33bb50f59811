"""Features are computed once for each content, whatever is killed, renamed or asked for in another order."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from fairhuman.data.pipeline.cache import CacheHealth
from fairhuman.errors import FairHumanError
from fairhuman.evaluate.networks import features as features_module
from fairhuman.evaluate.networks.features import extract_features
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.record import HumanRecord
from helpers.damage import flip


class MeanColour:
    """Mean red, green, blue, and the length of the prompt."""

    name, fingerprint, width = "mean-colour", "0123456789ab", 4

    def __init__(self, batch_size=3, reads_prompt=True, spoil=False):
        self.batch_size, self.reads_prompt, self.spoil, self.seen = batch_size, reads_prompt, spoil, 0

    def prepare(self, image):
        return torch.from_numpy(np.asarray(image.resize((8, 8)), np.float32)).permute(2, 0, 1)

    def extract(self, images_bchw, prompts):
        self.seen += len(images_bchw)
        assert len(images_bchw) <= self.batch_size
        lengths = torch.tensor([[float(len(prompt))] for prompt in prompts])
        found = torch.cat([images_bchw.mean(dim=(2, 3)), lengths], dim=1).numpy()
        return found * np.nan if self.spoil else found


def pictured(folder, number, prompt="a"):
    path = folder / f"{number}.png"
    Image.new("RGB", (20 + number, 16), (number, 2 * number, 3 * number)).save(path)
    record = HumanRecord(path.name, path, 20 + number, 16, "", location=path.name)
    return EvalImage(record, hashlib.sha256(path.read_bytes()).digest(), prompt, prompt)


@pytest.fixture
def pictures(tmp_path):
    return [pictured(tmp_path, number, "x" * (number + 1)) for number in range(10)]


def test_rows_are_those_of_their_pictures_in_any_order_and_batch(pictures, tmp_path):
    found = extract_features(MeanColour(), pictures, tmp_path / "cache")
    assert np.allclose(found, [[n, 2 * n, 3 * n, n + 1] for n in range(10)])
    backwards = extract_features(MeanColour(batch_size=1), pictures[::-1], tmp_path / "other")
    assert np.array_equal(backwards[::-1], found)


def test_what_is_known_is_not_computed_again(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(features_module, "KEEP_EVERY", 4)
    extractor = MeanColour()
    first = extract_features(extractor, pictures[:6], tmp_path / "cache")
    assert extractor.seen == 6
    whole = extract_features(extractor, [*pictures, pictures[0]], tmp_path / "cache")
    assert extractor.seen == 10
    assert np.array_equal(whole[:6], first)
    assert np.array_equal(whole[-1], whole[0])


def test_another_prompt_or_other_weights_are_other_features(pictures, tmp_path):
    extractor = MeanColour()
    extract_features(extractor, pictures[:1], tmp_path / "cache")
    other = EvalImage(pictures[0].record, pictures[0].sha256, "longer", "longer")
    assert extract_features(extractor, [other], tmp_path / "cache")[0, 3] == 6
    assert extractor.seen == 2
    silent = MeanColour(reads_prompt=False)
    silent.fingerprint = "ba9876543210"
    extract_features(silent, [pictures[0], other], tmp_path / "cache")
    assert silent.seen == 1


def test_a_killed_run_goes_on(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(features_module, "KEEP_EVERY", 4)

    class Killed(MeanColour):
        def extract(self, images_bchw, prompts):
            if self.seen >= 6:
                raise KeyboardInterrupt
            return super().extract(images_bchw, prompts)

    with pytest.raises(KeyboardInterrupt):
        extract_features(Killed(), pictures, tmp_path / "cache")
    extractor = MeanColour()
    found = extract_features(extractor, pictures, tmp_path / "cache")
    assert extractor.seen == 6, "the file of the first four is there"
    assert np.array_equal(found, extract_features(MeanColour(), pictures, tmp_path / "fresh"))


def test_features_that_are_not_finite_are_refused_by_name(pictures, tmp_path):
    with pytest.raises(FairHumanError, match=r"^mean-colour: features of 0.png aren't finite"):
        extract_features(MeanColour(spoil=True), pictures, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.parquet"))


def test_a_network_that_reads_prompts_needs_them(pictures, tmp_path):
    silent = EvalImage(pictures[3].record, pictures[3].sha256, "", "")
    with pytest.raises(FairHumanError, match=r"^mean-colour needs a prompt for every picture, and 3.png has none"):
        extract_features(MeanColour(), [*pictures[:2], silent], tmp_path / "cache")


def test_a_picture_that_changes_is_refused(pictures, tmp_path):
    pictures[2].record.image.write_bytes(pictures[3].record.image.read_bytes())
    with pytest.raises(FairHumanError, match=r"picture changed during the evaluation \(2.png\)"):
        extract_features(MeanColour(), pictures, tmp_path / "cache")


@pytest.mark.parametrize("damage", [flip, lambda file: file.write_bytes(b"no table")])
def test_a_damaged_file_of_the_cache_is_named_and_what_it_held_is_computed_again(pictures, tmp_path, damage):
    first = extract_features(MeanColour(), pictures, tmp_path / "cache")
    (file,) = (tmp_path / "cache").rglob("*.parquet")
    damage(file)
    extractor, health = MeanColour(), CacheHealth()
    found = extract_features(extractor, pictures, tmp_path / "cache", health=health)
    assert np.array_equal(found, first)
    assert extractor.seen == len(pictures)
    assert health.settle() == [
        f"feature cache: damaged files, deleted, and what they held computed again: 1 (such as {file})"
    ]
    (left,) = (tmp_path / "cache").rglob("*.parquet")
    assert left != file
    assert np.array_equal(extract_features(MeanColour(), pictures, tmp_path / "cache", health=CacheHealth()), first)


def test_files_of_an_earlier_version_are_used_unchecked_and_counted(pictures, tmp_path):
    first = extract_features(MeanColour(), pictures, tmp_path / "cache")
    (file,) = (tmp_path / "cache").rglob("*.parquet")
    old = file.rename(file.with_name(f"{file.stem.partition('-')[0]}.parquet"))
    extractor, health = MeanColour(), CacheHealth()
    assert np.array_equal(extract_features(extractor, pictures, tmp_path / "cache", health=health), first)
    assert extractor.seen == 0
    assert health.settle() == [
        f"feature cache: files of an earlier version without a digest, used unchecked: 1 (such as {old})"
    ]
    assert old.exists()
