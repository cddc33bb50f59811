"""The examples run, and the diffs do what they say to the scripts that they are for."""

import __future__

import ast
import json
import os
import runpy
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fairhuman

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SMALL = Path(fairhuman.__file__).parent / "models" / "small"
DIFFS = {
    "diffusers_lora_sdxl.diff": ("FAIRHUMAN_DIFFUSERS_SOURCE", "huggingface/diffusers at 58eb52c"),
    "sd_scripts_lora.diff": ("FAIRHUMAN_SD_SCRIPTS_SOURCE", "kohya-ss/sd-scripts at 48d368f"),
}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`example("plain_loop")` gives the names that an example defines."""
    monkeypatch.syspath_prepend(EXAMPLES)
    torch.manual_seed(0)
    yield lambda name: SimpleNamespace(**runpy.run_path(str(EXAMPLES / f"{name}.py")))
    sys.modules.pop("tiny", None)


def losses(example: Any, model: torch.nn.Module) -> torch.Tensor:
    """Of all pictures, by objective."""
    tiny = example("tiny")
    with torch.no_grad():
        batch = next(iter(torch.utils.data.DataLoader(tiny.Pictures(32), 32)))
        return torch.stack(tiny.three_losses(model, batch))


def test_the_plain_loop_learns_all_three(example: Any) -> None:
    plain, tiny = example("plain_loop"), example("tiny")
    model = tiny.Denoiser()
    before = losses(example, model)
    weights = plain.train(model, tiny.epochs(3))
    assert bool((losses(example, model) < 0.8 * before).all())
    assert len(weights) == 24
    assert all(len(step) == 3 and min(step) > 0.0 for step in weights)


def test_the_readme_shows_the_lines_of_the_plain_loop() -> None:
    code = (EXAMPLES / "plain_loop.py").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, section = readme.partition("from fairhuman.fairness import")
    imported, _, loop = f"from fairhuman.fairness import{section.partition('```')[0]}".partition("\n\n")
    assert f"\n{imported}\n" in code
    assert loop.startswith("fair = FairBackward(")
    assert textwrap.indent(loop, "    ") in code


def test_accelerate_accumulates_in_fp16(example: Any) -> None:
    accelerate = example("accelerate_loop")
    model = example("tiny").Denoiser()
    before = losses(example, model)
    steps = accelerate.train(model, 3)
    assert bool((losses(example, model) < 0.9 * before).all())
    assert len(steps) == 12, "two batches of eight each are a step"
    assert not any(step.skipped for step in steps)
    assert all(bool((step.weights > 0.0).all()) for step in steps)


def test_a_step_of_two_micro_batches_is_that_of_both(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision apart: the losses of the first step are the means of those of its batches, in fp16."""
    accelerate, tiny = example("accelerate_loop"), example("tiny")
    model = tiny.Denoiser()
    batches = list(tiny.epochs(1))[:2]
    with torch.no_grad():
        pairs = [torch.stack(tiny.three_losses(model, batch)) for batch in batches]
    expected = torch.stack(pairs).mean(0)
    first = accelerate.train(model, 1)[0]
    found = torch.tensor(first.losses)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)
    assert not torch.equal(found, expected), "in fp32 they would be the same to the bit"


# Lightning 2.6 asks torch for what torch 2.14 is about to drop.
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:GPU available but not used")
def test_the_lightning_module_learns_all_three(example: Any, tmp_path: Path) -> None:
    lightning = example("lightning_module")
    module = lightning.FairModule()
    before = losses(example, module.model)
    trainer = lightning.train(module, 3)
    assert bool((losses(example, module.model) < 0.8 * before).all())
    assert trainer.global_step == 24
    assert set(trainer.callback_metrics) == {"weight/global", "weight/face", "weight/hand"}
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = lightning.FairModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    assert torch.equal(losses(example, again.model), losses(example, module.model))


@pytest.mark.parametrize("name", DIFFS)
def test_a_diff_changes_at_most_20_lines_and_names_its_commit(name: str) -> None:
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("diff --git"))
    assert any(
        len(word) == 40 and set(word) <= set("0123456789abcdef")
        for word in " ".join(lines[:start]).replace(".", " ").split()
    )
    changed = [line for line in lines[start:] if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert 10 <= len(changed) <= 20


def patched(name: str, folder: Path) -> Path:
    """Copy the script that a diff is for from a checkout, and apply the diff."""
    variable, where = DIFFS[name]
    if not os.environ.get(variable):
        pytest.skip(f"needs {variable}, the folder of {where}")
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    script = next(line.removeprefix("+++ b/") for line in text.splitlines() if line.startswith("+++ b/"))
    target = folder / script
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(os.environ[variable]) / script, target)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "apply", EXAMPLES / name], cwd=folder, check=True)
    compile(target.read_bytes(), str(target), "exec")
    return target


@pytest.mark.slow
def test_diffusers_script_trains_on_masks_that_move_with_the_pictures(tmp_path: Path) -> None:
    """On the small SDXL. Pictures are their own masks, so that both must be equal after each crop and flip."""
    script = patched("diffusers_lora_sdxl.diff", tmp_path / "diffusers")
    code = script.read_text(encoding="utf-8")
    check = 'assert torch.equal(batch["pixel_values"][:, :2] / 2 + 0.5, batch["masks"])\n' + " " * 16
    script.write_text(code.replace("errors = (model_pred", f"{check}errors = (model_pred"), encoding="utf-8")
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    with (tmp_path / "photos" / "metadata.jsonl").open("w", encoding="utf-8") as rows:
        for number in range(6):
            picture = np.zeros((96, 80, 3), np.uint8)
            x, y = random.integers(5, 40, 2)
            picture[y : y + 30, x : x + 20, 0] = 255
            picture[70:80, 5 : 5 + 10 * (number % 2), 1] = 255
            for name in (f"{number}.png", f"{number}-mask.png"):
                Image.fromarray(picture).save(tmp_path / "photos" / name)
            row = {"file_name": f"{number}.png", "mask_file_name": f"{number}-mask.png", "text": "a person"}
            rows.write(json.dumps(row) + "\n")
    options = "--image_column image --caption_column text --resolution 64 --random_flip --train_batch_size 2 --rank 4"
    options += " --gradient_accumulation_steps 2 --max_train_steps 3 --learning_rate 1e-3 --seed 0 --output_dir out"
    places = ["--pretrained_model_name_or_path", SMALL, "--train_data_dir", "photos"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(fairhuman.__file__).parents[1])}
    command = [sys.executable, script, *places, *options.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "pytorch_lora_weights.safetensors").is_file()


@pytest.mark.slow
def test_sd_scripts_losses_are_those_of_the_masks(tmp_path: Path) -> None:
    """`process_batch` alone, between stand-ins for models and data: the script itself takes SD or SDXL at full size."""
    script = patched("sd_scripts_lora.diff", tmp_path)
    tree = ast.parse(script.read_text(encoding="utf-8"))
    trainer = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "NetworkTrainer")
    method = next(node for node in trainer.body if isinstance(node, ast.FunctionDef) and node.name == "process_batch")
    utilities = SimpleNamespace(
        get_huber_threshold_if_needed=lambda *_: None, conditional_loss=lambda a, b, *_: (a - b).square()
    )
    names: dict[str, Any] = {"torch": torch, "typing": __import__("typing"), "train_util": utilities}
    flags = __future__.annotations.compiler_flag
    exec(compile(ast.Module([method], []), str(script), "exec", flags=flags), names)

    predicted, target = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    weight, factor = torch.tensor([1.0, 0.5]), torch.tensor([2.0, 3.0])
    this = SimpleNamespace(
        shift_scale_latents=lambda _, latents: latents,
        get_noise_pred_and_target=lambda *_, **__: (predicted, target, torch.zeros(2), None),
        post_process_loss=lambda loss, *_: loss * factor,
    )
    masks = torch.full((2, 3, 64, 64), -1.0)
    masks[0, 0, :32, :32] = 1.0  # a face in the first picture, no hands
    batch = {
        "latents": predicted,
        "text_encoder_outputs_list": [predicted],
        "loss_weights": weight,
        "conditioning_images": masks,
    }
    unused = [None] * 7  # models and their types
    accelerator, options = SimpleNamespace(device=torch.device("cpu")), SimpleNamespace(loss_type="l2")
    found = names["process_batch"](this, batch, *unused, accelerator, options, None, None, train_text_encoder=False)
    errors = (predicted - target).square().mean(1)
    expected = (errors * (weight * factor).view(-1, 1, 1)).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(this.losses[1], 2.0 * errors[0, :4, :4].mean())
    assert this.losses[2] is None
