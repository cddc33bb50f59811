"""Hashes of weights: of the whole files, and those of pieces that earlier versions recorded."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fairhuman.models.fingerprint import earlier_fingerprints, sampled_fingerprint, weights_fingerprint
from helpers.damage import flip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file({"w": torch.arange(2**18, dtype=torch.float32)}, tmp_path / "a.safetensors")  # 1 MiB
    return tmp_path / "a.safetensors"


def test_a_bit_between_the_pieces_makes_another_file(file: Path) -> None:
    sampled, whole = sampled_fingerprint(file), weights_fingerprint(file)
    assert whole == hashlib.sha256(file.read_bytes()).hexdigest()
    flip(file, file.stat().st_size - 6000)
    assert sampled_fingerprint(file) == sampled
    assert weights_fingerprint(file) == hashlib.sha256(file.read_bytes()).hexdigest() != whole
    assert earlier_fingerprints(file, file.parent / "none") == {sampled: weights_fingerprint(file)}


def test_several_files_count_in_their_order(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.safetensors"
    save_file({"w": torch.zeros(3)}, other)
    one, two = weights_fingerprint(file), weights_fingerprint(other)
    both = hashlib.sha256(f"{one}{two}".encode()).hexdigest()
    assert weights_fingerprint(file, other) == weights_fingerprint(tmp_path) == both != weights_fingerprint(other, file)
    (tmp_path / "empty").mkdir()
    assert weights_fingerprint(tmp_path / "empty") is weights_fingerprint() is None
