"""The measurement of a GPU on the small model: every kind of cell, failures, time that is up, and going on."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import gpu
import gpu_cells
import gpu_measure
from fairhuman import config
from fairhuman.bench.noise import DEFAULT
from fairhuman.train.recipe import TrainRecipe
from gpu_cells import Cell, cells
from helpers.isolated_calls import call
from isolated import Failure, Here, Isolated

SMALL = ("--device", "cpu", "--small")
PARTS = ("--parts", "modes", "runs", "bases", "kinds")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The work folder of a measurement of some cells: steps, a base in shape alone, a whole run, and one that fails."""
    few = [
        Cell("modes", "bare loop", "bare", ("strategy=ls",)),
        Cell("modes", "output", "steps", ("fairness.mode=output", "fairness.every=1000000")),
        Cell("runs", "exact", "run", ("fairness.mode=exact",)),
        next(cell for cell in cells(small=True) if cell.part == "bases"),
        Cell("kinds", "no picture", "steps", ("batch_size=0",)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "cells", lambda _: few)
        patch.setattr("fairhuman.train.fairness.WARM_UP", 2)
        patch.setattr("fairhuman.bench.speed.WARM_UP", 1)
        patch.setattr(gpu_measure, "PICTURES", 1)
        work = tmp_path_factory.mktemp("gpu")
        gpu.main([*SMALL, "--work", str(work), *PARTS])
        yield work


def document(work: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / "gpu.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_every_kind_of_cell_is_measured_beside_its_prediction(measured: Path) -> None:
    found = document(measured)["cells"]
    assert list(found) == ["modes: bare loop", "modes: output", "runs: exact", *list(found)[3:]]
    output = found["modes: output"]
    assert output["images_per_s"][0] > 0.0
    assert output["exact_s"][0] > 0.0
    assert output["with_audits_s"] == pytest.approx(output["step_s"][1] * 31 / 32 + output["exact_s"][1] / 32, rel=1e-3)
    for name in ("modes: output", "bases: small-flow-untrained"):
        memory = found[name]["memory"]
        assert memory["live"]["ratio"] == 1.0, name
        assert memory["audit"]["measured"] > memory["step"]["measured"] > 0, name
    for row in memory.values():
        assert row["ratio"] == pytest.approx(1.0, rel=0.2)
        assert row["ratio"] == pytest.approx(row["measured"] / row["predicted"], rel=1e-3)
    assert found["runs: exact"]["memory"]["run"]["ratio"] > 0.0
    assert found["modes: bare loop"]["memory"] == {}, "its networks aren't those of a run"


@pytest.mark.slow
def test_a_failed_cell_is_named_and_tried_again(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = document(measured)
    assert "batch_size" in before["cells"]["kinds: no picture"]["failed"]
    gpu.main([*SMALL, "--work", str(measured), *PARTS])
    said = capsys.readouterr().out
    assert said.count("kinds: no picture: failed") == 1
    assert "modes" not in said
    assert "4 of 5 cells" in said
    assert {name: cell for name, cell in document(measured)["cells"].items() if "failed" not in cell} == {
        name: cell for name, cell in before["cells"].items() if "failed" not in cell
    }


def test_cells_without_time_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "cells", lambda _: [Cell("optimizers", "8-bit Adam, LS", "steps", ())])
    gpu.main([*SMALL, "--work", str(tmp_path), "--minutes", "0.1", "--parts", "optimizers"])
    assert "without a result: optimizers: 8-bit Adam, LS. The same command again goes on" in capsys.readouterr().out


@pytest.mark.slow
def test_results_of_another_device_are_kept(measured: Path, tmp_path: Path) -> None:
    other = document(measured)
    other["machine"]["gpu"] = "another"
    (tmp_path / "gpu.json").write_text(json.dumps(other))
    with pytest.raises(SystemExit, match="holds results of gpu 'another', this is None: choose another --out"):
        gpu.main([*SMALL, "--work", str(tmp_path), "--parts", "runs"])


@pytest.mark.parametrize("small", [False, True])
def test_cells_have_names_of_their_own_and_settings_that_go_together(small: bool) -> None:
    found = cells(small)
    assert len({(cell.part, cell.name) for cell in found}) == len(found)
    assert {cell.kind for cell in found} == {"bare", "steps", "run", "shape"}
    common = gpu_cells.SMALL if small else gpu_cells.TRUE
    for cell in found:
        config.build(TrainRecipe, {**DEFAULT, "data": "none", "out": "none"}, [*common, *cell.settings])


@pytest.mark.slow
def test_the_outcomes_of_tests(tmp_path: Path) -> None:
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "@pytest.mark.cuda\ndef test_a(): pass\n"
        "@pytest.mark.cuda\ndef test_b(): assert 1 == 2\n"
        "@pytest.mark.cuda\n@pytest.mark.skip(reason='none')\ndef test_c(): pass\n"
        "def test_d(): raise SystemExit\n"
    )
    found = gpu.cuda_tests(60.0, tmp_path)
    assert (found["passed"], found["skipped"], len(found["wrong"])) == (1, 1, 1)
    assert "assert 1 == 2" in next(iter(found["wrong"].values()))
    (tmp_path / "test_three.py").unlink()
    assert "no tests" in gpu.cuda_tests(60.0, tmp_path)["failed"]


def test_a_call_that_ends_badly_is_replaced() -> None:
    with closing(Isolated(call)) as caller:
        caller.send(1)
        assert caller.receive(60.0)[0] == 1
        caller.send(2)
        number, process = caller.receive(60.0)
        assert number == 2
        assert process != os.getpid()
        for argument, said in (("raise", "ValueError: no such thing"), ("crash", "exit code 7")):
            caller.send(argument)
            with pytest.raises(Failure, match=said):
                caller.receive(60.0)
        caller.send("wait")
        with pytest.raises(Failure, match=r"not done in 0 s"):
            caller.receive(0.1)
        caller.send(3)
        assert caller.receive(60.0)[1] != process
    here = Here(call)
    here.send("raise")
    with pytest.raises(Failure, match="ValueError: no such thing"):
        here.receive(0.0)
