"""Builds that are killed, run out of disk, meet another build or hostile files: nothing lost, nothing twice."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline import engine, run
from fairhuman.data.pipeline.write import Shard
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError, FairHumanError
from helpers.killed_builds import OPTIONS, finished, started
from helpers.small_builds import build, contents, rows
from helpers.tiny_pictures import encoded, picture


def kill_at(process, stage, seconds, group=True):
    """kill -9, some time after a stage has begun; whether the build hadn't ended by then."""
    for line in process.stdout:
        if line.startswith(stage):
            break
    time.sleep(seconds)
    (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def survives(many, whole, out, moments, least):
    """At least so many of the kills must come before the build has ended."""
    assert sum(kill_at(started(many, out), stage, seconds) for stage, seconds in moments) >= least
    code, output = finished(started(many, out))
    assert code == 0, output
    assert contents(out) == whole
    assert len({row["key"] for row in rows(out)}) == len(rows(out)) == 100


@pytest.mark.parametrize(
    "moments",
    [[("check", 0.3)], pytest.param([("check", 0.3), ("caption", 0.2), ("write", 0.1)], marks=pytest.mark.slow)],
    ids=["one", "three"],
)
def test_kill_9_gives_the_same_bytes(many, whole, tmp_path, moments):
    survives(many, whole, tmp_path / "out", moments, len(moments))


def read(out):
    return read_source(out, (), SourceSettings(), LoadReport())


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_an_unfinished_build_is_no_data_set(tmp_path, monkeypatch, first):
    """Tables of two builds, or a part of them, are never read as one data set; killed while tables are written."""
    photos, out = tmp_path / "photos", tmp_path / "my people"
    photos.mkdir()
    for i in range(20):
        (photos / f"{i:02}.png").write_bytes(encoded(picture(200, 200, i)))
        (photos / f"{i:02}.txt").write_text(f"person {i}")
    if not first:
        build(photos, out)
        assert len(read(out)) == 20

    class Killed(BaseException):
        pass

    def killed_at_second_table(start, tasks, *options):
        for n, outcome in enumerate(engine.run_tasks(start, tasks, *options)):
            yield outcome
            if n == 1 and isinstance(tasks[0], Shard):
                raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run, "run_tasks", killed_at_second_table)
        with pytest.raises(Killed):
            build(photos, out, "source.mask=subject")
    for place in (out, out / "data"):
        resume = rf"fairhuman data build {photos} '{out}' --recipe '{out}/recipe.yaml'$"
        with pytest.raises(DataError, match=rf"my people: a build in this folder hasn't finished; .*{resume}"):
            read(place)
    build(photos, out, "source.mask=subject")
    assert len(read(out)) == len(read(out / "data")) == 20


@pytest.mark.slow
def test_kill_9_at_twenty_moments_gives_the_same_bytes(many, whole, tmp_path):
    chance = random.Random(0)
    stages = ["list", "check", "check", "caption", "write"]
    moments = [(chance.choice(stages), chance.uniform(0, 1.5)) for _ in range(20)]
    survives(many, whole, tmp_path / "out", moments, 5)


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_build(many, whole, tmp_path):
    """They end by themselves, so that a new build has the folder for itself."""
    out = tmp_path / "out"
    assert kill_at(started(many, out), "check", 0.2, group=False)
    code, output = finished(started(many, out))
    assert code == 0, output
    assert contents(out) == whole


@pytest.mark.slow
def test_two_builds_at_once(many, tmp_path):
    first = started(many, tmp_path / "out")
    assert first.stdout.readline().startswith("list")
    code, output = finished(started(many, tmp_path / "out"))
    assert (code, "another build is running in this folder" in output) == (1, True), output
    assert finished(first)[0] == 0


def test_ctrl_c_ends_a_build_in_order(many, whole, tmp_path):
    process = started(many, tmp_path / "out")
    for line in process.stdout:
        if line.startswith("check"):
            break
    os.killpg(process.pid, signal.SIGINT)
    code, output = finished(process)
    assert code == 130, output
    assert "Traceback" not in output
    assert finished(started(many, tmp_path / "out"))[0] == 0
    assert contents(tmp_path / "out") == whole


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode and os.environ.get("CI"):
        pytest.fail("needs to mount a small disk")
    if mounted.returncode:
        pytest.skip(f"can't mount a small disk here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_named_and_the_build_goes_on_when_there_is_room(many, whole, small_disk):
    out = small_disk / "out"
    with pytest.raises(
        FairHumanError, match=r"(?i)no space left on device.*run the same command again to resume"
    ) as caught:
        build(many, out, *OPTIONS)
    assert "Traceback" not in str(caught.value)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    build(many, out, *OPTIONS)
    assert contents(out) == whole


def test_names_with_spaces_signs_and_no_unicode(tmp_path):
    root = tmp_path / "photos 🙂"
    names = ["a b.png", "日本.png", "🙂.png", "#1?.png", "x\ny.png", os.fsdecode(b"\xff.png")]
    for i, name in enumerate(names):
        (root / "sub folder").mkdir(parents=True, exist_ok=True)
        (root / "sub folder" / name).write_bytes(encoded(picture(20, 20, i)))
        (root / "sub folder" / name).with_suffix(".txt").write_text("x")
    assert build(root, tmp_path / "out", *OPTIONS).report["kept"] == len(names)
    assert len({row["key"] for row in rows(tmp_path / "out")}) == len(names)


def test_paths_that_leave_the_folder_are_refused(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(encoded(picture(20, 20)))
    (root / "good.png").write_bytes(encoded(picture(20, 20)))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    names = ["good.png", "../secret.png", str(tmp_path / "secret.png"), "link.png"]
    lines = [json.dumps({"file_name": name, "caption": "x"}) for name in names]
    (root / "metadata.jsonl").write_text("\n".join(lines))
    report = build(root, tmp_path / "out", *OPTIONS, "duplicates=keep").report
    assert report["rejected"] == {"check": {"path leaves the folder of the data set": 3}}


def test_a_folder_that_can_not_be_written(many, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(FairHumanError, match=r"out: can't be written: Read-only file system"):
        build(many, small_disk / "out", *OPTIONS)


def test_an_output_that_is_a_file(many, tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(FairHumanError, match="out: is a file; give a new folder for the data set"):
        build(many, tmp_path / "out", *OPTIONS)


def test_every_bad_file_gets_its_treatment(shared: Path, tmp_path):
    report = build(shared / "data" / "bad", tmp_path / "out", *OPTIONS, "duplicates=keep").report
    kept = [row["key"] for row in rows(tmp_path / "out")]
    skipped = ("01", "02", "03", "09", "10", "13")
    assert not any(key.startswith(skipped) for key in kept)
    accepted = ("00", "04", "05", "06", "07", "08", "11", "12", "14", "15", "16", "17", "18")
    assert {key[:2] for key in kept} == set(accepted)
    assert sum(report["rejected"]["read"].values()) == 3
    upright = next(row for row in rows(tmp_path / "out") if row["key"].startswith("08"))
    assert (upright["width"], upright["height"]) == (333, 512)


@pytest.mark.slow
def test_a_hundred_thousand_tiny_files(tmp_path):
    root = tmp_path / "tiny"
    data = [encoded(picture(16, 16, i)) for i in range(100)]
    for i in range(100_000):
        if i % 1000 == 0:
            (root / f"{i // 1000:03}").mkdir(parents=True)
        (root / f"{i // 1000:03}" / f"{i:06}.png").write_bytes(data[i % 100])
        (root / f"{i // 1000:03}" / f"{i:06}.txt").write_text("x")
    options = (*OPTIONS[:3], "block_rows=1024", "shard_rows=4096", "duplicates=keep")
    code, output = finished(started(root, tmp_path / "out", *options[3:]))
    assert code == 0, output
    assert json.loads((tmp_path / "out/report.json").read_text())["kept"] == 100_000


def test_a_source_without_rows(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "metadata.jsonl").write_text("")
    with pytest.raises(DataError, match="every record was rejected: the source has none"):
        build(tmp_path / "photos", tmp_path / "out", *OPTIONS)
