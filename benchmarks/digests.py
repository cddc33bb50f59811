"""Measure what digests cost: a training step that reads cached tensors, and reading and writing each kind of file.

    .venv/bin/python benchmarks/digests.py [--quick] [--parts step files]

`step`: LS on the small SDXL in bfloat16, LoRA of rank 16, 128 px, batch 4, from cached latents and text embeddings to
the optimiser; with and without digests in turn, and, as a step's time varies more than that, the CPU time within the
digests as a share of that of their step. `files`: a checkpoint of a LoRA of SDXL, rank 16 (23 million values, and two
moments of each), written and read; a latent of 1024 px and its caption's embedding; 64 pictures of a built shard, and
of its copy for random access; the features of 2,000 pictures. Each with digests and without, on files that are in main
memory already: the time of the disk is the same for both.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import load_file, save_file

from cache import WAYS, Stepper, recipe_of
from common import arguments, compare, one_thread, save, spread
from fairhuman.bench.noise import write_noise
from fairhuman.data.pictures import stored
from fairhuman.data.pictures.arrow_copies import with_arrow_copies
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.cache import FEATURE_ROWS, CachedRows
from fairhuman.data.samples import encodings
from fairhuman.data.samples.encodings import Encodings
from fairhuman.record import CopiedCell, FileSpan, HumanRecord, TableCell
from fairhuman.train.cache.fill import fill
from fairhuman.train.checkpoint import Checkpoints
from fairhuman.utils.digest import SUMS
from fairhuman.utils.tables import open_writer

WITHOUT, WITH = "without", "with"
ROUNDS = 60  # of steps
Pair = dict[str, Callable[[], object]]


def measure_steps(work: Path, quick: bool) -> dict[str, Any]:
    size = 64 if quick else 128
    write_noise(work / "pictures", 8 if quick else 64, (size, size))
    steppers: Pair = {}
    for way in (WITHOUT, WITH):
        recipe = recipe_of(work / "pictures", work / way, 2 if quick else 4, size, WAYS["both"])
        fill(recipe, LoadReport(), lambda _text: None, lambda *_done: None)
        if way == WITHOUT:
            for path in (work / way / "cache").rglob("*.safetensors"):
                save_file(load_file(path), path)  # drops the metadata
        steppers[way] = Stepper(recipe).step
    found = compare(steppers, WITHOUT, 2 if quick else ROUNDS)
    found[WITH]["share"] = spread(share_of_digests(steppers[WITH]) for _ in range(2 if quick else ROUNDS))
    return {"step": found}


def share_of_digests(step: Callable[[], object]) -> float:
    """CPU time of all digests in a step, as a share of the step's."""
    spent = 0.0
    digest = encodings._digest

    def timed(*inputs: Any) -> str:
        nonlocal spent
        start = time.process_time()
        found = digest(*inputs)
        spent += time.process_time() - start
        return found

    with mock.patch.object(encodings, "_digest", timed):
        start = time.process_time()
        step()
        whole = time.process_time() - start
    assert spent > 0
    return spent / whole


def checkpoints(work: Path, quick: bool) -> dict[str, Pair]:
    values = 10**5 if quick else 23_224_320
    trainable = {"lora": torch.randn(values)}
    state = {"optimizer": {"exp_avg": torch.randn(values), "exp_avg_sq": torch.rand(values)}}
    kept = {way: Checkpoints(work / way, keep=1) for way in (WITHOUT, WITH)}

    def written(way: str) -> None:
        with mock.patch("fairhuman.train.checkpoint.write_sums") if way == WITHOUT else mock.patch.dict({}):
            kept[way].save(1, trainable, state)

    for way in kept:
        written(way)
    assert not list(work.glob(f"{WITHOUT}/*/{SUMS}"))
    return {
        "checkpoint, written": {way: lambda way=way: written(way) for way in kept},
        "checkpoint, read": {way: one.load for way, one in kept.items()},
    }


def cached(work: Path, quick: bool) -> dict[str, Pair]:
    side = 16 if quick else 128
    tensors = {"latent": torch.randn(2, 4, side, side).half(), "text": torch.randn(77 * 2048 + 1280).half()}
    pairs: dict[str, Pair] = {}
    times = 10 if quick else 500
    for name, tensor in tensors.items():
        folder = work / name
        kept = Encodings(folder / WITH)
        kept.add(name, tensor)
        kept.flush()
        (folder / WITHOUT).mkdir()
        save_file({name: tensor}, folder / WITHOUT / "00000.safetensors")
        readers = {way: Encodings(folder / way) for way in (WITHOUT, WITH)}
        pairs[f"{name} of 1024 px, read {times} times"] = {
            way: lambda reader=reader, name=name: [float(reader.get(name)[..., 0].sum()) for _ in range(times)]
            for way, reader in readers.items()
        }
    return pairs


def shards(work: Path, quick: bool) -> dict[str, Pair]:
    write_noise(work / "pictures", 4 if quick else 64, (64, 64) if quick else (1024, 1024))
    pictures = [{"bytes": path.read_bytes(), "path": None} for path in sorted((work / "pictures").rglob("*.jpg"))]
    table = pyarrow.table({"image": pictures})
    with open_writer(work / f"{WITH}.parquet", table.schema) as file:
        file.write_table(table)
    pyarrow.parquet.write_table(table, work / f"{WITHOUT}.parquet", compression="none")
    cells = {
        way: [TableCell(work / f"{way}.parquet", row, ("image",)) for row in range(len(pictures))]
        for way in (WITHOUT, WITH)
    }

    def read(way: str) -> None:
        stored._column.cache_clear()  # as in a process that reads for the first time
        for cell in cells[way]:
            stored.read_bytes(cell)

    records = [HumanRecord(str(cell.row), cell, 1, 1, "") for cell in cells[WITH]]
    copies = [record.image for record in with_arrow_copies(records, work / "copies", small=0)]
    spans = [FileSpan(copy.path, copy.offset, copy.length) for copy in copies if isinstance(copy, CopiedCell)]
    both: dict[str, Sequence[Any]] = {WITH: copies, WITHOUT: spans}
    count = len(pictures)
    return {
        f"{count} pictures of a shard, read": {way: lambda way=way: read(way) for way in cells},
        f"{count} copies of them, read": {
            way: lambda way=way: [stored.read_bytes(copy) for copy in both[way]] for way in (WITHOUT, WITH)
        },
    }


def features(work: Path, quick: bool) -> dict[str, Pair]:
    count = 20 if quick else 2000
    rows = {number.to_bytes(32): np.random.default_rng(number).random(1280, np.float32) for number in range(count)}
    for start in range(0, count, 256):
        CachedRows(work / WITH, FEATURE_ROWS).add(dict(list(rows.items())[start : start + 256]))
    (work / WITHOUT).mkdir()
    for path in (work / WITH).iterdir():
        (work / WITHOUT / f"{path.name.partition('-')[0]}.parquet").write_bytes(path.read_bytes())
    return {
        f"features of {count} pictures, read": {
            way: lambda way=way: CachedRows(work / way, FEATURE_ROWS).read(rows) for way in (WITHOUT, WITH)
        }
    }


def measure_files(work: Path, quick: bool) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for make in (checkpoints, cached, shards, features):
        folder = work / make.__name__
        folder.mkdir()
        for name, pair in make(folder, quick).items():
            results[name] = compare(pair, WITHOUT, 2 if quick else 9)
    return results


def main() -> None:
    parts = {"step": measure_steps, "files": measure_files}
    options = arguments(__doc__, tuple(parts))
    one_thread()
    for part in options.parts:
        with tempfile.TemporaryDirectory() as work:
            found = parts[part](Path(work), options.quick)
        for name, ways in found.items():
            ratio, cpu = ways[WITH]["ratio"], {way: 1000 * ways[way]["cpu_s"]["median"] for way in ways}
            print(
                f"{name:40} {cpu[WITHOUT]:8.2f} ms, with digests {cpu[WITH]:8.2f} ms, ratio {ratio['median']:.3f} "
                f"({ratio['min']:.3f} to {ratio['max']:.3f})"
            )
            if share := ways[WITH].get("share"):
                print(f"  digests alone: {share['median']:.3%} ({share['min']:.3%} to {share['max']:.3%}) of a step")
        save("digests", {"repeats": {"step": ROUNDS, "files": 9}, "baseline": WITHOUT}, {part: found}, options)


if __name__ == "__main__":
    main()
