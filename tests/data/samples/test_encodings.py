"""Tensors on disk: what was written is what is read, by any number of processes, whatever killed the writer."""

import json
import multiprocessing
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fairhuman.data.samples import encodings
from fairhuman.data.samples.encodings import Encodings, _digest, count_other_networks
from helpers.damage import flip, flip_in


def tensor(number: int, size: int = 64) -> torch.Tensor:
    return torch.full((2, size), float(number), dtype=torch.float16)


def filled(folder: Path, numbers: range) -> Encodings:
    kept = Encodings(folder)
    for number in numbers:
        kept.add(f"key{number}", tensor(number), f"origin{number}")
    kept.flush()
    return kept


def test_added_tensors_are_found_before_and_after_writing(tmp_path: Path) -> None:
    kept = Encodings(tmp_path / "kept")
    kept.add("a", tensor(1))
    assert not (tmp_path / "kept").exists()
    for reader in (kept, filled(tmp_path / "other", range(3))):
        reader.add("a", tensor(1))
        reader.flush()
        assert torch.equal(reader.get("a"), tensor(1))
        assert torch.equal(Encodings(reader.folder).get("a"), tensor(1))
        assert torch.equal(pickle.loads(pickle.dumps(reader)).get("a"), tensor(1))
    assert (len(kept), len(reader)) == (1, 4)
    assert kept.get("b") is None


def test_files_grow_so_that_they_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "FIRST", 1000)
    monkeypatch.setattr(encodings, "SHARD", 64_000)
    filled(tmp_path, range(1000))  # of 256 bytes each
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*.safetensors"))]
    assert len(sizes) <= 4 + 7 + 1
    assert max(sizes) < 2 * 64_000
    assert len(Encodings(tmp_path)) == 1000


def test_a_reader_sees_what_another_writes_later(tmp_path: Path) -> None:
    reader = filled(tmp_path, range(2))
    filled(tmp_path, range(1, 5))
    assert torch.equal(reader.get("key4"), tensor(4))
    assert len(reader) == 5


def test_a_tensor_that_another_wrote_meanwhile_is_not_written_again(tmp_path: Path) -> None:
    one, two = Encodings(tmp_path), Encodings(tmp_path)
    for kept in (one, two):
        kept.add("a", tensor(1))
        kept.flush()
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def write_some(folder: Path, first: int, step: int) -> None:
    for start in range(first, 200, 20 * step):  # parts overlap, and two writers write the same
        filled(folder, range(start, min(start + 30 * step, 200), step))


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_some, args=(tmp_path, first % 3, 3)) for first in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    kept = Encodings(tmp_path)
    assert not kept.notes
    assert len(kept) == 200
    assert all(torch.equal(kept.get(f"key{number}"), tensor(number)) for number in range(200))


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from fairhuman.data.samples import encodings
save = encodings.save_file
def half(tensors, path, metadata):
    save(tensors, path, metadata)
    if len(tensors) == 7:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
encodings.save_file = half
for count in (5, 7):
    kept = encodings.Encodings(Path(sys.argv[1]))
    for number in range(count):
        kept.add(f"{count} {number}".replace(" ", "-"), torch.full((2, 64), float(number), dtype=torch.float16))
    kept.flush()
"""


def test_a_file_that_kill_9_left_half_written_is_discarded(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".*.partial"))
    kept = Encodings(tmp_path)
    assert (len(kept), kept.notes) == (5, [])
    for number in range(7):
        kept.add(f"7-{number}", tensor(number))
    kept.flush()
    assert not list(tmp_path.glob(".*.partial"))
    assert (len(Encodings(tmp_path)), kept.notes) == (12, [])


def test_a_changed_content_of_the_same_origin_is_counted_once(tmp_path: Path) -> None:
    filled(tmp_path, range(3))
    kept = Encodings(tmp_path)
    kept.add("other", tensor(9), "origin1")
    kept.add("third", tensor(9), "origin1")
    kept.add("new", tensor(9), "somewhere-else")
    assert kept.changed == 1
    assert torch.equal(kept.get("other"), tensor(9))


def test_a_damaged_file_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    filled(tmp_path, range(3))
    filled(tmp_path, range(3, 5))
    path = tmp_path / "00000.safetensors"
    os.truncate(path, path.stat().st_size - 10)
    kept = Encodings(tmp_path)
    assert len(kept) == 2
    assert len(kept.notes) == 1
    assert f"{path}: damaged, not used; delete it" in kept.notes[0]
    kept.add("key0", tensor(0))
    kept.flush()
    assert torch.equal(Encodings(tmp_path).get("key0"), tensor(0))
    assert torch.equal(Encodings(tmp_path).get("key4"), tensor(4))


def test_a_flipped_bit_makes_a_tensor_missing_until_it_is_written_again(tmp_path: Path) -> None:
    filled(tmp_path, range(3))
    file = tmp_path / "00000.safetensors"
    flip_in(file, tensor(1).numpy().tobytes())  # of the middle one of three
    kept = Encodings(tmp_path)
    assert (len(kept), kept.damaged) == (3, 0)
    assert [kept.get(f"key{number}") is None for number in range(3)] == [False, True, False]
    assert (len(kept), kept.damaged, kept.notes) == (2, 1, [])
    assert kept.get("key1") is None
    kept.add("key1", tensor(1), "origin1")
    kept.flush()
    assert (kept.damaged, kept.added, kept.changed) == (1, 1, 0)  # its picture hasn't changed
    for reader in (kept, Encodings(tmp_path)):
        assert torch.equal(reader.get("key1"), tensor(1))
    assert reader.damaged == 0


def test_a_sign_a_type_and_a_name_are_part_of_what_is_checked(tmp_path: Path) -> None:
    filled(tmp_path, range(1, 2))
    file = tmp_path / "00000.safetensors"
    whole = file.read_bytes()
    for part, other in ((tensor(1).numpy().tobytes(), None), (b'"F16"', b'"I16"'), (b"[2,64]", b"[64,2]")):
        if other is None:
            flip(file, whole.index(part) + 1, bit=7)  # the sign of the first number
        else:
            file.write_bytes(whole.replace(part, other))
        assert Encodings(tmp_path).get("key1") is None, part


def test_tensors_of_an_earlier_version_are_read_unchecked_and_counted(tmp_path: Path) -> None:
    save_file({"key7 origin7": tensor(7)}, tmp_path / "00000.safetensors")
    filled(tmp_path, range(2))
    kept = Encodings(tmp_path)
    assert torch.equal(kept.get("key7"), tensor(7))
    assert (len(kept), kept.unchecked, kept.damaged) == (3, 1, 0)


def test_tensors_that_changed_places_are_missing(tmp_path: Path) -> None:
    """The tensors of two names, of two names with their digests, and of another network's folder."""
    kept = filled(tmp_path / "latents-a", range(2))
    (file,) = kept.folder.glob("*.safetensors")
    tensors, metadata = load_file(file), safe_open(file, framework="pt").metadata()
    (one, first), (two, second) = tensors.items()
    save_file({one: second, two: first}, file, metadata)
    assert [Encodings(kept.folder).get(f"key{number}") for number in range(2)] == [None, None]
    digests = json.loads(metadata["bound_digests"])
    swapped = {one: digests[two], two: digests[one]}
    save_file({one: second, two: first}, file, {"bound_digests": json.dumps(swapped)})
    assert [Encodings(kept.folder).get(f"key{number}") for number in range(2)] == [None, None]
    save_file(tensors, file, metadata)
    assert torch.equal(Encodings(kept.folder).get("key1"), tensor(1))
    moved = kept.folder.rename(tmp_path / "latents-b")
    other = Encodings(moved)
    assert (len(other), other.get("key0"), other.damaged, other.unchecked, other.unbound) == (2, None, 1, 0, 0)


def test_digests_of_an_earlier_version_are_checked_as_before_and_counted(tmp_path: Path) -> None:
    kept = filled(tmp_path / "kept", range(2))
    (file,) = kept.folder.glob("*.safetensors")
    tensors = load_file(file)
    save_file(tensors, file, {"digests": json.dumps({name: _digest(None, name, one) for name, one in tensors.items()})})
    flip_in(file, tensor(1).numpy().tobytes())
    again = Encodings(kept.folder)
    assert (again.unchecked, again.unbound) == (0, 2)
    assert torch.equal(again.get("key0"), tensor(0))
    assert (again.get("key1"), again.damaged) == (None, 1)


@pytest.mark.parametrize("trials", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_damage_gives_another_tensor_or_an_error(tmp_path: Path, trials: int) -> None:
    filled(tmp_path, range(3))
    (file,) = tmp_path.glob("*.safetensors")
    whole, draw, noticed = file.read_bytes(), random.Random(0), 0
    for trial in range(trials):
        file.unlink()  # another trial has it mapped
        file.write_bytes(whole[: draw.randrange(len(whole))] if trial % 4 == 0 else whole)
        if trial % 4:
            flip(file, draw.randrange(len(whole)) if trial % 2 else draw.randrange(700), draw.randrange(8))
        kept = Encodings(tmp_path)
        found = [kept.get(f"key{number}") for number in range(3)]
        assert all(one is None or torch.equal(one, tensor(number)) for number, one in enumerate(found)), trial
        assert kept.unchecked == kept.unbound == 0
        noticed += None in found
    assert noticed > trials / 2


def test_a_lock_that_is_a_link_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".lock").symlink_to(tmp_path / "elsewhere")
    kept = filled(tmp_path / "kept", range(3))
    assert kept.full
    assert "can't be written (Too many levels of symbolic links)" in kept.notes[0]
    assert not (tmp_path / "elsewhere").exists()


def test_digests_that_are_no_mapping_damage_the_file(tmp_path: Path) -> None:
    for digests in ("[1]", "{", "7"):
        save_file({"key7": tensor(7)}, tmp_path / "00000.safetensors", {"bound_digests": digests})
        kept = Encodings(tmp_path)
        assert (len(kept), len(kept.notes)) == (0, 1), digests


def test_metadata_without_digests_damages_the_file(tmp_path: Path) -> None:
    save_file({"key7": tensor(7)}, tmp_path / "00000.safetensors", {"bound_digestr": "{}"})
    kept = Encodings(tmp_path)
    assert (len(kept), kept.unchecked) == (0, 0)
    assert "damaged, not used; delete it (its metadata has no bound_digests" in kept.notes[0]


def test_a_folder_that_cannot_be_created_is_noted_once_without_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = filled(tmp_path / "file" / "kept", range(3))
    kept.add("more", tensor(1))
    kept.flush()
    assert kept.full
    assert len(kept.notes) == 1
    assert "file/kept: can't be written (Not a directory)" in kept.notes[0]
    assert kept.get("key1") is None


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write more, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_in_the_middle_leaves_what_was_there(tmp_path: Path) -> None:
    filled(tmp_path, range(3))
    kept = Encodings(tmp_path)
    kept.add("large", tensor(1, 100_000))
    with largest_file(50_000):
        kept.flush()
    assert kept.full
    assert "can't be written" in kept.notes[0]
    assert len(kept) == len(Encodings(tmp_path)) == 3


def test_the_last_gigabyte_is_reserved_for_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "RESERVE", 2**60)
    kept = filled(tmp_path, range(3))
    assert "No space left on device: 1099511627776 MiB are left free" in kept.notes[0]
    assert not list(tmp_path.glob("*.safetensors"))


def test_tensors_of_other_networks_are_counted_and_of_other_kinds_are_not(tmp_path: Path) -> None:
    for name, count in (("latents-a", 2), ("latents-b", 3), ("texts-a", 4)):
        filled(tmp_path / name, range(count))
    assert count_other_networks(tmp_path / "latents-a") == 3
    assert count_other_networks(tmp_path / "latents-new") == 5
