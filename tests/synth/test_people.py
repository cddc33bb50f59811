"""A set on disk: read by the data set's readers, the same however it came about, refused where it doesn't fit."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from fairhuman.config import build
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError, FairHumanError, RecipeError
from fairhuman.regions.transforms import JointTransform
from fairhuman.synth import people, workers
from fairhuman.synth.body import Body
from fairhuman.synth.people import SCHEMA, missing_tables, write_people
from fairhuman.synth.render import KEYPOINTS, render
from fairhuman.synth.settings import SynthSettings
from fairhuman.synth.summary import summarize_people

TABLE_ROWS = 8
SETTINGS = SynthSettings(count=20, size=32, seed=6, degraded=0.3)


@pytest.fixture(autouse=True)
def _small_tables_and_one_body(monkeypatch: pytest.MonkeyPatch, body: Body) -> None:
    monkeypatch.setattr(people, "_TABLE_ROWS", TABLE_ROWS)
    monkeypatch.setattr(workers, "Body", lambda _: body)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, body: Body) -> Path:
    """The set of SETTINGS, rendered in this process without a break."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(people, "_TABLE_ROWS", TABLE_ROWS)
        patch.setattr(workers, "Body", lambda _: body)
        assert write_people(out, SETTINGS, workers=1) == SETTINGS.count
    return out


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data").iterdir())}


def test_columns_hold_what_was_rendered(whole: Path, body: Body) -> None:
    table = pyarrow.parquet.read_table(whole / "data")
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == [f"6-{number:07d}" for number in range(20)]
    for number, row in enumerate(rows[:4]):
        picture = render(body, 6, number, 32)
        assert row["caption"] == picture.caption
        assert np.allclose(row["pose"], picture.keypoints, atol=1e-4)
        assert len(row["pose"]) == len(KEYPOINTS)
        depth = np.asarray(Image.open(io.BytesIO(row["depth"]["bytes"])))
        assert np.abs(depth / 1000 - picture.depth).max() <= 0.0005 + 1e-6
        for name, mask in row["masks"].items():
            assert (np.asarray(Image.open(io.BytesIO(mask["bytes"]))) == picture.masks[name]).all()
        assert len(row["faces"]) + len(row["hands"]) == len(picture.boxes)
        image = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
        assert (image != picture.image).any() == row["degraded"]


def test_summary_counts_boxes_and_visibility(whole: Path) -> None:
    rows = pyarrow.parquet.read_table(whole / "data").to_pylist()
    found = summarize_people(whole)
    assert found.pictures == 20
    assert found.faces == sum(len(row["faces"]) for row in rows)
    assert found.hands == sum(len(row["hands"]) for row in rows)
    assert found.degraded == sum(row["degraded"] for row in rows)
    for name, share in found.visible.items():
        assert share == pytest.approx(np.mean([row["visibility"][name] for row in rows]), abs=1e-6)


def test_the_data_set_reads_it_with_painted_masks(whole: Path, body: Body) -> None:
    report = LoadReport()
    records = read_source(whole, ("face", "hand"), SourceSettings(), report)
    assert len(records) == 20
    assert report.counts() == {}
    dataset = PeopleDataset(records, ("face", "hand"), JointTransform((32, 32), crop="center", flip_probability=0))
    for position in range(4):
        sample = dataset[position]
        assert sample.notes == ()
        assert sample.known_r.tolist() == [True, True]
        picture = render(body, 6, int(sample.key.split("-")[1]), 32)
        for mask, name in zip(sample.masks_rhw, ("face", "hand"), strict=True):
            assert np.abs(mask.numpy() * 255 - picture.masks[name]).max() < 1.5


def test_hugging_face_datasets_reads_it(whole: Path, tmp_path: Path) -> None:
    import datasets

    files = sorted(map(str, (whole / "data").glob("*.parquet")))
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert loaded.num_rows == 20
    pictures = loaded.cast_column("image", datasets.Image())
    assert pictures[0]["image"].size == (32, 32)


SCRIPT = """
import sys, time
from pathlib import Path
from fairhuman.synth import people
def tell(done):
    print(done, flush=True)
    if done == int(sys.argv[4]):
        time.sleep(600)  # to be killed here
if __name__ == "__main__":
    people._TABLE_ROWS = int(sys.argv[2])
    settings = people.SynthSettings.model_validate_json(sys.argv[3])
    people.write_people(Path(sys.argv[1]), settings, workers=2, progress=tell)
"""


def children(process: int) -> set[int]:
    """Running descendants of a process, as /proc has them."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_kill_9_and_two_workers_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    """Killed by force when some pictures are done; its workers end too, and the same call goes on."""
    script, out = tmp_path / "script.py", tmp_path / "people"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script), str(out), str(TABLE_ROWS), SETTINGS.model_dump_json()]
    environment, stop = {**os.environ, "OMP_NUM_THREADS": "1"}, TABLE_ROWS + 1
    with subprocess.Popen(
        [*command, str(stop)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if int(line) == stop:
                break
        started = children(run.pid)
        run.send_signal(signal.SIGKILL)
    assert len(started) >= 2
    deadline = time.monotonic() + 30
    while any(map(is_running, started)):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)
    assert list(tables(out)) == ["people-0000000-0000008.parquet"]
    finished = subprocess.run([*command, "-1"], capture_output=True, text=True, env=environment, check=True)
    assert finished.stdout.splitlines()[0] == str(TABLE_ROWS)
    assert finished.stderr == ""
    assert tables(out) == tables(whole)


def test_growing_a_set_equals_a_larger_count_at_once(whole: Path, tmp_path: Path) -> None:
    smaller = SETTINGS.model_copy(update={"count": 11})
    assert write_people(tmp_path, smaller, workers=1) == 11
    assert sum(map(len, missing_tables(tmp_path, SETTINGS).values())) == 12  # the last table is rendered anew
    told: list[int] = []
    assert write_people(tmp_path, SETTINGS, workers=1, progress=told.append) == 12
    assert told == [*range(8, 21)]
    assert tables(tmp_path) == tables(whole)
    assert write_people(tmp_path, SETTINGS, workers=1) == 0
    with pytest.raises(DataError, match=r"already has 20 people, count=11 would remove some"):
        write_people(tmp_path, smaller)


def test_a_set_that_stopped_early_takes_any_count_that_keeps_its_people(whole: Path, tmp_path: Path) -> None:
    damage("count", 20)(tmp_path)
    (tmp_path / "data").mkdir()
    first = "people-0000000-0000008.parquet"
    (tmp_path / "data" / first).write_bytes(tables(whole)[first])
    with pytest.raises(DataError, match=r"already has 8 people, count=7 would remove some"):
        missing_tables(tmp_path, SETTINGS.model_copy(update={"count": 7}))
    assert list(missing_tables(tmp_path, SETTINGS.model_copy(update={"count": 11})).values()) == [range(8, 11)]


def test_the_cores_are_counted_where_a_process_can_t_be_told_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    rows = workers.rendered_rows(lambda *_, **row: row, range(20), None, print)
    assert [row["number"] for row in rows] == [*range(20)]


def damage(name: str, value: object) -> Callable[[Path], None]:
    def write(out: Path) -> None:
        document = {**SETTINGS.model_dump(), "versions": people._versions(), name: value}
        (out / "synth.json").write_text(json.dumps(document), encoding="utf-8")

    return write


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda out: (out / "notes.txt").touch(), "must be a new or empty folder"),
        (damage("size", 64), r"other settings \(size was 64, now 32\)"),
        (damage("seed", 1), r"other settings \(seed was 1, now 6\)"),
        (damage("degraded", 0.0), r"other settings \(degraded was 0.0, now 0.3\)"),
        (damage("versions", {"anny": "0.1", "warp-lang": people._versions()["warp-lang"]}), "anny was 0.1, now"),
        (damage("versions", None), "not a file of `fairhuman synth`"),
        (damage("count", None), "not a file of `fairhuman synth`"),
        (lambda out: (out / "synth.json").write_text("{"), "not a file of `fairhuman synth`"),
        (lambda out: (out / "synth.json").write_text("[]"), "not a file of `fairhuman synth`"),
    ],
)
def test_a_folder_with_other_content_is_left_alone(
    tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(tmp_path)
    before = [(path, path.read_bytes()) for path in tmp_path.iterdir()]
    with pytest.raises(DataError, match=message):
        write_people(tmp_path, SETTINGS)
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == before


def test_a_folder_that_can_t_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match="must be a new or empty folder"):
        write_people(file, SETTINGS)
    with pytest.raises(FairHumanError, match="/proc/people: can't be written"):
        write_people(Path("/proc/people"), SETTINGS)

    def full(path: Path, write: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fairhuman.utils.tables.write_atomically", full)
    with pytest.raises(
        FairHumanError, match="can't be written: No space left on device; run the same command again to resume"
    ):
        write_people(tmp_path / "people", SETTINGS.model_copy(update={"count": 1}), workers=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count: input should be greater than or equal to 1, found 0"),
        ({"count": 1, "size": 8}, "size: input should be greater than or equal to 16, found 8"),
        ({"count": 1, "size": 5000}, "size: input should be less than or equal to 4096, found 5000"),
        ({"count": 1, "degraded": 1.5}, "degraded: input should be less than or equal to 1, found 1.5"),
        ({"count": 1, "seed": -1}, "seed: input should be greater than or equal to 0, found -1"),
        ({"count": 1, "sise": 64}, "unknown setting 'sise'; did you mean 'size'"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(SynthSettings, values, origin="synth")
