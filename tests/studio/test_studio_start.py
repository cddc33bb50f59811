"""Starting a run from the studio: what may be set, what a dry run says, where it may write."""

import pytest

from fairhuman.studio import start as module
from fairhuman.studio.start import command, form, recipes


def test_the_form_has_every_setting_and_recipes_of_runs_alone():
    found = form()
    names = {setting["name"] for setting in found["settings"]}
    assert set(found["first"]) <= names
    assert {"fairness.mode", "view.crop", "optimizer.name"} <= names
    assert all(setting["description"] for setting in found["settings"])
    assert "recipes/lora-small.yaml" in recipes()
    assert "recipes/compare-small.yaml" not in recipes()


@pytest.fixture
def processes(monkeypatch):
    """What would be started, instead of starting it."""
    started = []
    monkeypatch.setattr(
        module.subprocess, "Popen", lambda words, **_: started.append(words[3:]) or type("P", (), {"pid": 1})
    )
    return started


def test_a_run_starts_below_the_studio_s_folders_alone(opened, run, processes, tmp_path):
    studio = opened(run.parent)
    body = {"recipe": "recipes/lora-small.yaml", "settings": ["data=photos", f"out={run.parent / 'new'}", "steps=5"]}
    assert studio.post("/api/start", body).json() == {"started": True}
    assert processes == [["train", body["recipe"], *body["settings"]]]
    assert (run.parent / "new.log").is_file()
    outside = studio.post("/api/start", {**body, "settings": ["data=photos", f"out={tmp_path / 'else'}"]})
    assert (outside.status_code, "at or below a folder" in outside.json()["message"]) == (422, True)
    for wrong in ("--help", "steps 5", "=3"):
        assert studio.post("/api/start", {**body, "settings": [wrong]}).status_code == 422
    assert studio.post("/api/start", {**body, "recipe": "/etc/passwd"}).status_code == 422
    assert studio.post("/api/resume", {"run": "mpd"}).json() == {"started": True}
    assert processes[-1] == ["train", str(run / "recipe.yaml"), f"out={run}"]
    assert len(processes) == 2
    assert opened(run.parent, read_only=True).post("/api/start", body).status_code == 403
    assert opened(run.parent, read_only=True).get("/start").status_code == 403


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
