"""The demo at tiny size: everything is made once, the page shows it, and other settings are refused."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fairhuman.compare import jobs
from fairhuman.demo.run import run_demo
from fairhuman.demo.settings import DemoSettings
from fairhuman.errors import RecipeError
from fairhuman.report.run_folder import read_metrics, read_validation
from fairhuman.utils.display import Display
from helpers import warm

TINY = DemoSettings(people=6, held_out=4, size=64, steps=3, batch_size=2, rank=2, previews=2, samples=2, sample_steps=2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jobs, "subprocess", warm)
        assert run_demo(out, TINY, Display()) is None
    return out


def test_the_page_shows_all_models_and_stands_alone(demo: Path) -> None:
    page = (demo / "report.html").read_text(encoding="utf-8")
    for heading in ("Held-out losses", "Held-out pictures", "Samples from captions", "Training", "What the model sees"):
        assert f">{heading}" in page
    shown = re.findall(r'alt="(base|LS|fixed weights|MPD)"', page)
    assert shown == ["base", "LS", "fixed weights", "MPD"] * 4  # 2 previews, 2 samples
    links = {"ls/report.html", "fixed/report.html", "mpd/report.html", "evaluation/report.html"}
    assert set(re.findall(r"(?:src|href)=\"(?!data:|#)([^\"]*)\"", page)) == links
    assert all((demo / link).is_file() for link in links)
    assert "face detection rate" in page
    assert "small-scale" in page.lower()
    assert len(re.findall(r"<td>[\d.]+ \[", page)) >= 3  # the base's losses with their intervals


@pytest.mark.parametrize("method", ["ls", "fixed"])
def test_the_runs_are_paired(demo: Path, method: str) -> None:
    other, mpd = demo / method, demo / "mpd"
    for which in ("global", "face", "hand"):
        losses = [read_metrics(run).columns[f"loss/{which}"][0] for run in (other, mpd)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    (before, *_, after), (before_mpd, *_, after_mpd) = read_validation(other), read_validation(mpd)
    assert before.keys == before_mpd.keys
    assert list(before.errors["face"]) == list(before_mpd.errors["face"])
    assert list(after.errors["face"]) != list(after_mpd.errors["face"])
    assert all(key.startswith(f"validation/{TINY.seed + 1}-") for key in before.keys)


@pytest.mark.slow
def test_a_demo_of_before_the_fixed_weights_gets_their_run(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "subprocess", warm)
    for folder in (demo / "fixed", demo / "samples" / "fixed"):
        shutil.rmtree(folder)
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*.safetensors")}
    assert run_demo(demo, TINY, Display()) is None
    assert (demo / "fixed" / "report.html").is_file()
    assert before
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_same_again_redoes_nothing_but_the_page(demo: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.suffix in (".png", ".safetensors")}
    (demo / "report.html").unlink()
    assert run_demo(demo, TINY, Display()) is None
    assert (demo / "report.html").is_file()
    assert len(before) > 10
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_in_the_same_folder_are_refused_by_name(demo: Path) -> None:
    other = TINY.model_copy(update={"targets": "attention+conv"})
    with pytest.raises(RecipeError, match=r"holds a demo with targets 'attention', not 'attention\+conv'"):
        run_demo(demo, other, Display())


def test_a_dry_run_writes_nothing_and_shows_all_recipes(
    tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    code, shown, _ = typed("demo", tmp_path / "out", "--targets", "attention+conv", "--dry-run")
    assert code == 0
    assert shown.count("strategy: ls") == 2
    assert "face: 0.15" in shown
    assert "strategy: mpd" in shown
    assert "targets: attention+conv" in shown
    assert not (tmp_path / "out").exists()


def test_another_base_is_a_demo_with_its_own_guidance(
    tmp_path: Path, tiny_base: Callable[[str], Path], typed: Callable[..., tuple[int, str, str]]
) -> None:
    code, shown, _ = typed("demo", tmp_path / "out", "--model", tiny_base("sd3"), "--dry-run")
    assert code == 0
    assert "guidance: 7.0" in shown
    code, _, errors = typed("demo", tmp_path / "out", "--model", tiny_base("sd3"), "--targets", "attention+conv")
    assert code != 0
    assert "lora.targets=attention+conv isn't for Stable Diffusion 3.5" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_demo_of_another_base(
    tmp_path: Path, tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "subprocess", warm)
    settings = TINY.model_copy(update={"model": str(tiny_base("sd3"))})
    assert run_demo(tmp_path / "out", settings, Display()) is None
    assert "<h1>Fair fine-tuning of Stable Diffusion 3.5</h1>" in (tmp_path / "out/report.html").read_text()
