"""The benchmark of MoLE: its budget, and stages that feed each other."""

from pathlib import Path

from mole import MOLE, MPD, Plan, last_run, stage_steps, training


def test_the_budget_is_shared_out_as_in_the_paper() -> None:
    assert stage_steps(140) == {"face": 30, "hand": 60, "gates": 50}
    assert sum(stage_steps(161).values()) == 161


def test_all_methods_look_at_as_many_pictures_and_the_gates_start_from_their_experts() -> None:
    plan = Plan(Path("work"))
    stages = [training(plan, MOLE, 1e-3, 1, stage) for stage in ("face", "hand", "gates")]
    lora = last_run(plan, MPD, 1e-3, 1)
    assert sum(stage.steps * stage.batch_size for stage in stages) == lora.steps * lora.batch_size
    assert stages[2].mole.starts == {"face": stages[0].product, "hand": stages[1].product}
    assert {stage.strategy for stage in stages} == {"ls"}
