"""Weights: found where they are, told apart by content, and refused with a word on what is wanted."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from fairhuman.evaluate.networks.extractor import WeightsError
from fairhuman.evaluate.networks.weights import WeightsSource, fingerprint, load_weights, read_state_dict

FILE = WeightsSource(metric="A score", option="score.weights", hub="someone/score:score.pt", size="3 GB")
FOLDER = WeightsSource(
    metric="A score", option="score.folder", hub="someone/score", size="3 GB", files=("*.json", "*.safetensors")
)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))


def test_a_local_path_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "own.pt").touch()
    assert FILE.find(str(tmp_path / "own.pt")) == tmp_path / "own.pt"
    assert FOLDER.find(str(tmp_path)) == tmp_path


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("source", "given", "wanted"),
    [
        (FILE, None, "someone/score:score.pt"),
        (FILE, "other/one:own.pt", "other/one:own.pt"),
        (FOLDER, None, "someone/score"),
        (FOLDER, "other/one", "other/one"),
    ],
)
def test_what_the_hub_does_not_give_is_named(source: WeightsSource, given: str | None, wanted: str) -> None:
    with pytest.raises(WeightsError) as caught:
        source.find(given)
    page = f"https://huggingface.co/{wanted.partition(':')[0]}"
    for said in ("A score needs", f" {wanted} ", "3 GB", page, f"{source.option}=PATH"):
        assert said in str(caught.value)
    with pytest.raises(WeightsError, match=f"as evaluate.{source.option}=PATH"):
        source.check(given, "evaluate.")


def test_a_hub_that_cannot_be_reached_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the connection have no base class of Python's own."""

    class ConnectError(Exception):
        pass

    def refuse(*_: object, **__: object) -> None:
        raise ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    with pytest.raises(WeightsError, match=r"isn't in the hub's local cache and .*; give a local path"):
        FILE.check(None)


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [
        (FILE, "no/such/file.pt", "score.weights must be a file or a hub id such as owner/name:file; there is no file"),
        (FILE, "someone/score", "score.weights must be a file or a hub id such as owner/name:file"),
        (FOLDER, "someone/score:score.pt", "score.folder must be a folder or a hub id such as owner/name; there"),
    ],
)
def test_what_is_neither_a_path_nor_a_hub_id_is_refused(source: WeightsSource, given: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        source.find(given)


def test_a_folder_counts_by_its_named_files(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "README.md"):
        (tmp_path / name).touch()
    assert FOLDER.files_of(tmp_path) == [tmp_path / "config.json", tmp_path / "model.safetensors"]


def test_the_fingerprint_follows_content_and_preprocessing_and_nothing_else(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    os.utime(second, (1, 1))
    mark = fingerprint("resize 1", [first])
    assert mark == fingerprint("resize 1", [second])
    assert len(mark) == 12
    assert set(mark) <= set("0123456789abcdef")
    assert fingerprint("resize 2", [first]) != mark
    assert fingerprint("resize 1", [first, second]) != mark
    first.write_bytes(b"others!")
    os.utime(first, (2, 2))
    assert fingerprint("resize 1", [first]) != mark


def test_tensors_come_back_as_they_were_saved(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.float16)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "nested.pt")
    torch.save(state, tmp_path / "plain.pt")
    for found in (read_state_dict(tmp_path / "nested.pt", "state_dict"), read_state_dict(tmp_path / "plain.pt")):
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch harmed",))


def test_a_file_with_code_is_refused_unrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"state_dict": Harmful()}))
    with pytest.raises(WeightsError, match=r"bad\.pt: expected weights"):
        read_state_dict(tmp_path / "bad.pt")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("stored", "key", "message"),
    [
        ([torch.ones(1)], None, "expected tensors by name$"),
        ({"a": torch.ones(1)}, "state_dict", "expected tensors by name under the key 'state_dict'"),
        ({"a": 1.0}, None, "expected tensors by name"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, stored: object, key: str | None, message: str) -> None:
    torch.save(stored, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=message):
        read_state_dict(tmp_path / "other.pt", key)


def test_half_precision_fills_a_float32_network() -> None:
    network = nn.Linear(2, 1)
    load_weights(
        network, {"weight": torch.tensor([[0.5, 2.0]], dtype=torch.float16), "bias": torch.zeros(1)}, Path("x.pt")
    )
    assert network.weight.dtype == torch.float32
    assert network.weight.tolist() == [[0.5, 2.0]]


def test_each_fault_is_named_with_the_first_of_its_names_and_nothing_is_filled_in() -> None:
    network = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    before = network[2].weight.clone()
    state = {"2.weight": torch.zeros(2, 2), "2.bias": torch.zeros(7), "head.weight": torch.zeros(1)}
    message = (
        r"x.pt: these aren't weights of Sequential; missing: 0.weight, 0.bias, 1.weight and 1 more; "
        r"unknown: head.weight; of another shape: 2.bias \(7,\) instead of \(2,\)$"
    )
    with pytest.raises(WeightsError, match=message):
        load_weights(network, state, Path("x.pt"))
    assert torch.equal(network[2].weight, before)
