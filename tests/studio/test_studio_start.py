"""Starting a run from the studio: what may be set, what a dry run says, where it may write."""

import json
import os
import time
from pathlib import Path

import pytest

from fairhuman.config import overridden
from fairhuman.studio import start as module
from fairhuman.studio.start import command, form, recipe_values, recipes
from fairhuman.utils.files import alone
from helpers.tiny_pictures import encoded, picture


def test_the_form_has_every_setting_and_recipes_of_runs_alone():
    found = form()
    names = {setting["name"] for setting in found["settings"]}
    assert set(found["first"]) <= names
    assert {"fairness.mode", "view.crop", "optimizer.name"} <= names
    assert all(setting["description"] for setting in found["settings"])
    assert "recipes/lora-small.yaml" in recipes()
    assert not {f"recipes/{name}.yaml" for name in ("compare-small", "paper-small", "refine")} & set(recipes())


def test_a_recipe_with_a_mistake_is_listed_and_one_of_a_build_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    for name, text in (
        ("mistake", "data: a\nstepps: 3"),
        ("build", "min_side: 64\ncaption: {kind: text}\nseed: 1"),
        ("cut", "a: ["),
    ):
        (tmp_path / f"recipes/{name}.yaml").write_text(text)
    assert [name for name in recipes() if Path(name).is_file()] == ["recipes/mistake.yaml"]


def test_the_form_shows_the_values_of_the_chosen_recipe(opened, run):
    found = recipe_values("recipes/photos-small.yaml")
    assert {name: found[name] for name in ("resolution", "learning_rate", "lora.rank", "batch_size")} == {
        "resolution": "128",
        "learning_rate": "0.0003",
        "lora.rank": "16",
        "batch_size": "4",
    }
    assert "seed" not in found  # where the default stands
    assert opened(run.parent).get("/api/form").json()["recipes"]["recipes/photos-small.yaml"] == found


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("out=runs/a #b", "out=runs/a #b"),
        ("data=odd & photos #1 ü", "data=odd & photos #1 ü"),
        ("data=[2020] trip", 'data="[2020] trip"'),
        ("data=[{path: a}, {path: b}]", "data=[{path: a}, {path: b}]"),
        ("out=a: b", 'out="a: b"'),
        ("out=2020", 'out="2020"'),
        ('lora.title="yes', 'lora.title="\\"yes"'),
        ("lora.start=null", "lora.start=null"),
        ("steps=5", "steps=5"),
        ("regions.names=[face, hand]", "regions.names=[face, hand]"),
    ],
)
def test_a_text_is_taken_literally(typed, said):
    assert command("recipes/lora-small.yaml", [typed])[3:] == [said]
    name, _, value = typed.partition("=")
    read = overridden({}, [said])
    for part in name.split("."):
        read = read[part]
    assert (read == value) == (name not in ("steps", "regions.names") and "null" not in value and "{" not in value)


class Process:
    """A training run that isn't one; `code` is that of its end."""

    code = None

    def __init__(self, words, stdout, **_):
        self.words, self.log = words[3:], stdout.name

    def poll(self):
        return self.code


@pytest.fixture
def processes(monkeypatch):
    """What would be started, instead of starting it."""
    started = []
    monkeypatch.setattr(
        module.subprocess, "Popen", lambda *args, **options: started.append(Process(*args, **options)) or started[-1]
    )
    return started


def test_a_run_starts_below_the_studio_s_folders_alone(opened, run, processes, tmp_path):
    studio = opened(run.parent)
    body = {"recipe": "recipes/lora-small.yaml", "settings": ["data=photos", f"out={run.parent / 'new'}", "steps=5"]}
    assert studio.post("/api/start", body).json() == {"started": True}
    assert [one.words for one in processes] == [["train", body["recipe"], *body["settings"]]]
    assert (run.parent / "new.log").is_file()
    outside = studio.post("/api/start", {**body, "settings": ["data=photos", f"out={tmp_path / 'else'}"]})
    assert (outside.status_code, "at or below a folder" in outside.json()["message"]) == (422, True)
    for wrong in ("--help", "steps 5", "=3"):
        assert studio.post("/api/start", {**body, "settings": [wrong]}).status_code == 422
    assert studio.post("/api/start", {**body, "recipe": "/etc/passwd"}).status_code == 422
    assert studio.post("/api/resume", {"run": "mpd"}).json() == {"started": True}
    assert processes[-1].words == ["train", str(run / "recipe.yaml"), f"out={run}"]
    assert len(processes) == 2
    assert opened(run.parent, read_only=True).post("/api/start", body).status_code == 403
    assert opened(run.parent, read_only=True).get("/start").status_code == 403


def test_a_dry_run_says_where_a_run_may_write(opened, run, processes, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fairhuman.studio.start_pages.dry_run", lambda _: {"ready": True, "findings": ["ok      data: 12 pictures"]}
    )
    studio = opened(run.parent)

    def plan(out):
        found = studio.post("/api/plan", {"recipe": "recipes/lora-small.yaml", "settings": [f"out={out}"]}).json()
        return found["ready"], [*found["findings"]]

    assert plan(run.parent / "new") == (True, ["ok      data: 12 pictures"])
    ready, findings = plan(tmp_path / "else")
    assert not ready
    assert findings[0].startswith(f"missing out: out is {tmp_path / 'else'}, which must be at or below a folder")
    assert findings[1:] == ["ok      data: 12 pictures"]
    studio.post("/api/resume", {"run": "mpd"})
    assert plan(run) == (
        False,
        [f"missing out: out is {run}, into which a run is writing already", "ok      data: 12 pictures"],
    )


@pytest.mark.parametrize("ready", [False, True])
def test_in_the_folder_of_a_run_a_new_one_is_offered_another_name(opened, run, processes, monkeypatch, ready):
    monkeypatch.setattr(
        "fairhuman.studio.start_pages.dry_run", lambda _: {"ready": ready, "findings": ["To go on to step 60 ..."]}
    )
    (run.parent / "mpd-2").mkdir()
    body = {"recipe": "recipes/lora-small.yaml", "settings": [f"out={run}"]}
    found = opened(run.parent).post("/api/plan", body).json()
    goes_on = f"note out: {run} holds a run, which goes on"
    another = f"missing out: {run} holds a run, so choose another out for a new one, such as {run.parent / 'mpd-3'}"
    assert (found["ready"], found["findings"][0]) == (ready, goes_on if ready else another)
    assert found["findings"][1:] == ["To go on to step 60 ..."]


def test_strategies_and_the_regions_of_a_data_set_can_be_chosen(opened, run):
    photos = run.parent / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(encoded(picture(8, 8, 1)))
    row = {"file_name": "a.png", "logo": [[1, 1, 4, 4]]}
    (photos / "metadata.jsonl").write_text(json.dumps(row))
    studio = opened(run.parent)
    assert {"mpd", "ls", "torchjd:UPGrad"} <= set(studio.get("/api/form").json()["choices"]["strategy"])
    assert {"face", "hand", "logo"} <= set(studio.get("/api/regions", data=str(photos)).json()["regions"])
    for elsewhere in ("", "nowhere", "/", str(run)):
        assert studio.get("/api/regions", data=elsewhere).json() == {"regions": []}
    (photos / "edits.jsonl").write_text("{}\n")
    assert studio.get("/api/regions", data=str(photos)).status_code == 422


def test_a_run_is_starting_until_its_folder_says_more(opened, run, processes, monkeypatch):
    (run / "recipe.yaml").write_text("steps: 1000\n")
    studio = opened(run.parent)
    body = {"recipe": "recipes/lora-small.yaml", "settings": ["data=photos", f"out={run.parent / 'new'}"]}

    def listed():
        return {
            one["name"]: (one["state"], one.get("says"), one["listed"])
            for one in studio.get("/api/runs").json()["runs"]
        }

    (run.parent / "mpd.log").write_text("of an earlier start\n")
    assert listed() == {"mpd": ("stopped", None, True)}
    studio.post("/api/resume", {"run": "mpd"})
    studio.post("/api/start", body)
    assert listed() == {"new": ("starting", "", False), "mpd": ("starting", "", True)}
    assert studio.post("/api/resume", {"run": "mpd"}).status_code == 409
    (run.parent / "mpd.log").write_text("of an earlier start\nreading data\n\n")
    assert listed()["mpd"] == ("starting", "reading data", True)
    assert studio.get("/api/metrics", run="mpd").json()["state"]["says"] == "reading data"
    with alone(run / ".lock", "held"):
        assert listed()["mpd"] == ("running", None, True)
    os.utime(run / "metrics.jsonl", (time.time() + 5, time.time() + 5))
    assert listed()["mpd"] == ("stopped", None, True)  # it has trained, and is about to end
    for one in processes:
        one.code = 1
    (run.parent / "new.log").write_text("too little memory\n")
    assert listed()["mpd"] == ("stopped", "It ended with 1: reading data", True)
    assert listed()["new"] == ("failed", "It ended with 1: too little memory", False)
    for one in processes:
        one.code = 0
    assert listed() == {"mpd": ("stopped", None, True)}


def test_a_dry_run_s_findings_are_shown_and_wrong_settings_told(monkeypatch):
    said = type(
        "Done",
        (),
        {
            "stdout": "model: small\nlora:\n  rank: 4\nok      data: 12 pictures\nmissing memory: none\n",
            "stderr": "",
            "returncode": 1,
        },
    )
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: said)
    found = module.dry_run(command("recipes/lora-small.yaml", ["data=photos"]))
    assert found["findings"] == ["ok      data: 12 pictures", "missing memory: none"]
    assert (found["ready"], found["command"]) == (False, "fairhuman train recipes/lora-small.yaml data=photos")
