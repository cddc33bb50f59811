"""What the studio serves, and what it refuses."""

import json
import os
import random
import shutil
import time

import pytest
from PIL.PngImagePlugin import PngInfo

from fairhuman import config
from fairhuman.errors import DataError, RecipeError
from fairhuman.report.colours import colours
from fairhuman.report.training import write_training_report
from fairhuman.studio.places import find_places
from fairhuman.studio.settings import StudioSettings
from fairhuman.train.run import STOP
from fairhuman.utils.files import alone
from helpers.places import ROOT
from helpers.run_folder import make_run
from helpers.tiny_pictures import encoded, picture


def test_runs_are_found_below_the_given_folders_also_those_that_begin_later(opened, run, monkeypatch):
    studio = opened(run.parent)
    [state] = studio.get("/api/runs").json()["runs"]
    assert (state["name"], state["state"], state["step"], state["steps"]) == ("mpd", "finished", 200, 200)
    assert state["strategy"] == "mpd"
    monkeypatch.setattr("fairhuman.studio.base.LOOK_SECONDS", 0.0)
    shutil.copytree(run, run.parent / "deeper" / "ls")
    assert {one["name"] for one in studio.get("/api/runs").json()["runs"]} == {"mpd", "deeper/ls"}
    assert opened(run).root != studio.root
    assert opened(run.parent).root == studio.root  # pages that are open go on


def test_speed_and_time_left_are_of_the_same_last_steps(opened, run):
    """The first steps measure more, and take longer than those to come."""
    rows = [{"step": n, "images": 4 * n, "images_per_s": 1.0 if n <= 16 else 4.0} for n in range(1, 25)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (run / "recipe.yaml").write_text("steps: 30\n")
    with alone(run / ".lock", "held"):
        [state] = opened(run.parent).get("/api/runs").json()["runs"]
    assert (state["left"], state["seconds_a_step"], state["images_per_s"]) == (6.0, 1.0, 4.0)


@pytest.mark.parametrize("path", ["/run", "/compare"])
def test_what_does_not_fit_side_by_side_is_told(opened, run, path):
    for i in range(7):
        shutil.copytree(run, run.parent / f"more-{i}")
    studio, names = opened(run.parent), ["mpd", *(f"more-{i}" for i in range(7))]
    assert "Shown: 6 of 8; no more fit side by side." in studio.get(path, name=names).text
    assert "Shown:" not in studio.get(path, name=names[:6]).text


def test_curves_are_sent_again_only_where_they_changed(opened, run):
    studio = opened(run)
    first = studio.get("/api/metrics", run="mpd", points=50).json()
    assert len(first["curves"]["steps"]) <= 50
    assert {"loss/face", "share/face", "images_per_s"} - {"share/face"} <= set(first["curves"]["columns"])
    assert first["colours"]["face"] == "#D55E00"
    assert "global-face" in first["colours"]
    again = studio.get("/api/metrics", run="mpd", points=50, known=first["version"]).json()
    assert "curves" not in again
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 201, "loss/face": 0.25, "loss/feet": 0.5, "cos/face-feet": 0.1, "cos/global-feet": 0.1}\n')
    more = studio.get("/api/metrics", run="mpd", known=first["version"]).json()
    assert more["curves"]["steps"][-1] == 201
    assert more["colours"]["feet"] == colours(["feet"])["feet"]  # as on every other page, whatever pairs there are
    part = studio.get("/api/metrics", run="mpd", first=150, last=160).json()["curves"]["steps"]
    assert (part[0], part[-1]) == (150, 160)


def test_held_out_losses_have_intervals_and_previews_their_files(opened, run):
    studio = opened(run)
    found = studio.get("/api/run", run="mpd").json()
    assert found["held_out"]["steps"] == [0, 50, 100, 150, 200]
    last = found["held_out"]["objectives"]["face"][-1]
    assert last["low"] < last["value"] < last["high"]
    assert last["change"]["verdict"] == "lower"
    page = write_training_report(run).read_text(encoding="utf-8")
    assert f">{last['change']['text']}<" in page, "the same digits as in the report"
    row = found["previews"][0]
    assert [shot["step"] for shot in row["steps"]] == [0, 100, 200]
    for file in (row["photo"], row["steps"][-1]["photo"], "overlay.png"):
        picture = studio.get("/run/picture", run="mpd", file=file)
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
        assert picture.content == (run / file).read_bytes()
    assert found["notes"] == ["skipped: truncated <b>file</b> (3)", "dropped: box of no width (12)"]
    (run / "log.txt").write_text("at the start\n")
    assert studio.get("/api/run", run="mpd").json()["log"] == ["at the start"]


def test_no_file_outside_the_index_of_previews_is_served(opened, run, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (run / "previews" / "link.png").symlink_to(tmp_path / "secret.png")
    index = json.loads((run / "previews" / "index.json").read_text())
    index["rows"][0]["photo"] = "previews/link.png"
    index["rows"][1]["photo"] = "../../secret.png"
    (run / "previews" / "index.json").write_text(json.dumps(index))
    studio = opened(run)
    for file in ("previews/link.png", "../../secret.png", "/etc/passwd", "recipe.yaml", "metrics.jsonl", "", "\0"):
        assert studio.get("/run/picture", run="mpd", file=file).status_code == 404
    for name in ("..", "/", "nothing", "mpd/previews"):
        assert studio.get("/api/run", run=name).status_code == 404


def test_a_run_of_an_earlier_version_and_damaged_files_are_shown(opened, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(ROOT / "tests" / "begun" / "training" / "run", old)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2, "loss/glo')
    (bare / "recipe.yaml").write_text("[" * 5000)
    (bare / "previews").mkdir()
    (bare / "previews" / "index.json").write_text('{"rows": [3, {"steps": {"x": 1, "4": {"photo": 5}}, "boxes": [1]}]}')
    (bare / "validation.jsonl").write_text('{"step": 1, "objectives": {"face": {"error": 3}}}\n')
    studio = opened(tmp_path)
    states = {state["name"]: state for state in studio.get("/api/runs").json()["runs"]}
    assert states["old"]["step"] == 22
    assert (states["bare"]["step"], states["bare"]["damaged"], states["bare"]["state"]) == (1, 1, "stopped")
    assert "face" in studio.get("/api/run", run="old").json()["held_out"]["objectives"]
    found = studio.get("/api/run", run="bare").json()
    assert found["held_out"]["problem"]
    assert [row["steps"] for row in found["previews"]] == [[{"step": 4}]]


def test_a_run_is_asked_to_stop_by_a_file_where_it_runs(opened, run):
    studio = opened(run)
    late = studio.post("/api/stop", {"run": "mpd"})
    assert (late.status_code, (run / STOP).exists()) == (409, False)
    with alone(run / ".lock", "held"):
        assert studio.get("/api/runs").json()["runs"][0]["state"] == "running"
        assert studio.post("/api/stop", {"run": "mpd"}).json()["state"]["state"] == "stopping"
        assert (run / STOP).is_file()
    (run / STOP).unlink()
    (run / STOP).symlink_to(run / "elsewhere")
    with alone(run / ".lock", "held"):
        assert studio.post("/api/stop", {"run": "mpd"}).status_code == 403
    assert not (run / "elsewhere").exists()


def test_a_run_on_another_machine_runs_while_its_steps_come(opened, run):
    (run / "summary.json").unlink(missing_ok=True)
    (run / "recipe.yaml").write_text("steps: 1000\n")
    (run / ".lock").write_text("node7")
    studio = opened(run)

    def state() -> tuple[str, str | None]:
        [found] = studio.get("/api/runs").json()["runs"]
        return found["state"], found["host"]

    assert state() == ("running", "node7")
    assert studio.post("/api/resume", {"run": "mpd"}).status_code == 409
    assert studio.post("/api/stop", {"run": "mpd"}).json()["state"]["state"] == "stopping"
    assert (run / STOP).is_file()  # which the run on the other machine sees
    long_ago = time.time() - 3600
    os.utime(run / "metrics.jsonl", (long_ago, long_ago))
    assert state() == ("stopped", "node7")
    (run / ".lock").write_text("")  # as a run leaves it that ends by itself
    os.utime(run / "metrics.jsonl")
    assert state() == ("stopped", None)


def test_a_read_only_studio_changes_nothing(opened, run):
    studio = opened(run, read_only=True)
    with alone(run / ".lock", "held"):
        answer = studio.post("/api/stop", {"run": "mpd"})
    assert (answer.status_code, (run / STOP).exists()) == (403, False)
    assert "read-only" in studio.get("").text


def test_other_hosts_foreign_pages_and_wrong_secrets_get_nothing(opened, run):
    studio = opened(run)
    assert studio.client.get("/").status_code == 404
    assert studio.client.get(f"/s/{'A' * 43}/api/runs").status_code == 404
    assert studio.get("/api/runs").status_code == 200
    assert studio.client.get(f"{studio.root}/api/runs", headers={"host": "evil.example"}).status_code == 400
    assert studio.post("/api/stop", {"run": "mpd"}, origin="http://evil.example").status_code == 403
    assert studio.post("/api/stop", {"run": "mpd", "more": 1}).status_code == 422
    for points in ("x", "-1", "1e3", "9" * 30, "٣"):
        assert studio.get("/api/metrics", run="mpd", points=points).status_code == 422
    page = studio.get("/run", name="mpd")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert studio.get("/run", name="<b>").status_code == 404


def test_a_folder_with_nothing_to_show_is_refused_unless_it_waits_for_a_run(opened, tmp_path):
    places = find_places([tmp_path])
    assert (places.runs, places.data, places.samples) == ({}, {}, {})
    assert "No run yet" in opened(tmp_path).get("").text
    (tmp_path / "notes.md").write_text("of something else")
    with pytest.raises(DataError, match="no picture in"):
        find_places([tmp_path])
    with pytest.raises(DataError, match="there is no such file or folder"):
        find_places([tmp_path / "missing"])


@pytest.mark.parametrize("name", ["new", "more/new"])
def test_a_run_that_loads_or_ended_so_is_waited_for(opened, tmp_path, monkeypatch, name):
    monkeypatch.setattr("fairhuman.studio.base.LOOK_SECONDS", -1.0)
    runs = tmp_path / "runs"
    runs.mkdir()
    studio = opened(runs)
    out = runs / name
    out.mkdir(parents=True)
    out.with_name("new.log").write_text("reading data")
    (out / "data_report.json").write_text("{}")
    for one in (studio, opened(runs)):
        assert "No run yet" in one.get("").text
        assert one.get("/api/runs").json()["runs"] == []
    (runs / "notes.md").write_text("of something else")
    with pytest.raises(DataError, match="no picture in"):
        find_places([runs])
    assert studio.get("").status_code == 200
    make_run(out)
    assert [one["name"] for one in studio.get("/api/runs").json()["runs"]] == [name]
    shutil.rmtree(runs)
    assert studio.get("").status_code == 200


@pytest.mark.parametrize(("drawn", "kind"), [("10.png", "samples"), ("29.png", "data")])
def test_the_first_picture_by_name_tells_samples_from_photos(tmp_path, drawn, kind):
    folder = tmp_path / "root" / "pictures"
    folder.mkdir(parents=True)
    info = PngInfo()
    info.add_text("fairhuman", "{}")
    for name in (".a.png", *(f"{n}.png" for n in range(29, 9, -1))):  # a folder lists them in any order
        picture(8, 8, 1).save(folder / name, pnginfo=info if name == drawn else None)
    make_run(tmp_path / "root" / "run")
    assert list(getattr(find_places([tmp_path / "root"]), kind)) == ["pictures"]


def test_a_folder_of_photos_alone_is_a_data_set_among_others(run, tmp_path):
    for name in ("photos", "notes"):
        folder = run.parent / name
        folder.mkdir()
        (folder / "a.png").write_bytes(encoded(picture(8, 8, 1)))
        (folder / "a.txt").write_text("somebody")
    (run.parent / "photos" / "edits.jsonl").write_text("")
    (run.parent / "notes" / "notes.md").write_text("pictures of a page, not of people")
    shutil.copytree(run.parent / "photos", run.parent / "photos" / "more")
    places = find_places([run.parent])
    assert (set(places.runs), set(places.data), places.samples) == ({"mpd"}, {"photos"}, {})
    shutil.rmtree(run)
    assert list(find_places([run.parent]).data.values()) == [run.parent]  # as before: photos at any depth are one set
    info = PngInfo()
    info.add_text("fairhuman", "{}")
    picture(8, 8, 1).save(run.parent / "photos" / "more" / "a.png", pnginfo=info)
    assert set(find_places([run.parent]).samples) == {"photos/more"}


def test_the_pictures_of_a_study_are_no_data_set(run):
    study = run.parent / "study"
    (study / "pictures").mkdir(parents=True)
    (study / "pictures" / "a.png").write_bytes(encoded(picture(8, 8, 1)))
    assert set(find_places([run.parent]).data) == {"study"}
    for name in ("study.yaml", "design.json"):
        (study / name).write_text("{}")
    assert find_places([run.parent]).data == {}
    with pytest.raises(DataError, match=rf"{study}: is a study; run `fairhuman study serve {study}`"):
        find_places([study])


def test_a_setting_of_something_else_is_not_taken_for_one_of_the_studio():
    with pytest.raises(RecipeError, match="unknown setting 'steps'; known are read_only"):
        config.build(StudioSettings, {"steps": 3}, origin="studio")


def test_links_and_hidden_folders_are_not_followed(run, tmp_path):
    (run.parent / "loop").symlink_to(tmp_path)
    shutil.copytree(run, run.parent / ".hidden")
    assert set(find_places([run.parent]).runs) == {"mpd"}


ODD = ("", "\0", "../..", "/etc/passwd", "-1", "1e9", "9" * 40, "nan", "<b>", "mpd", "photos", "🙂" * 50, "%00", "kept")


def test_no_request_makes_the_server_fail(opened, run):
    """Addresses and bodies with odd values in every place get an answer below 500."""
    studio = opened(run)
    generator = random.Random(0)
    routes = [route for route in studio.client.app.routes if getattr(route, "path", "").startswith("/s/")]
    assert len(routes) > 20
    names = (
        "name",
        "run",
        "number",
        "points",
        "known",
        "first",
        "file",
        "group",
        "state",
        "below",
        "row",
        "of",
        "like",
        "draw",
    )
    body_names = (
        "name",
        "run",
        "number",
        "version",
        "caption",
        "region",
        "boxes",
        "runs",
        "again",
        "names",
        "row",
        "star",
        "settings",
    )
    for route in routes:
        path = route.path.replace("/s/{token}", "")
        for _ in range(8):
            if "POST" in route.methods:
                body = {
                    key: generator.choice([*ODD, 0, -1, [], [1], {}, None, True])
                    for key in generator.sample(body_names, 4)
                }
                answer = studio.post(path, generator.choice([body, [], "x", None]))
            else:
                params = {key: generator.choice(ODD) for key in generator.sample(names, 4)}
                answer = studio.get(path, **params)
            assert answer.status_code < 500, (path, answer.text)
