"""A training step of `fairhuman train` against one of diffusers' SDXL LoRA script, both from file to optimiser.

    git clone --depth 1 https://github.com/huggingface/diffusers
    .venv/bin/python benchmarks/diffusers_script.py --script PATH/train_text_to_image_lora_sdxl.py

The script isn't part of this repository. Both train the small SDXL, LoRA of rank 16 on attention, batch 4, 128 px, on
the same pictures, in separate one-thread processes, in turn. A step's time is the difference in CPU time between a long
and a short run, divided by the difference in steps, so that starting, loading and saving cancel out.

    script, float32      unchanged except for rank, batch size and resolution
    script, best flags   bfloat16, including the VAE
    LS, NAME             the plain sum of the three losses in the same precision, with or without both caches
    MPD, MODE            in bfloat16, with both caches
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import arguments, save, spread
from fairhuman.bench.noise import write_noise
from fairhuman.utils.shipped import SMALL_FOLDER

BATCH, RANK, SIZE = 4, 16, 128
KEPT = {"latents": True, "text": True}


def script_command(script: Path, model: Path, pictures: Path, out: Path, steps: int, best: bool) -> list[str]:
    values = {
        "pretrained_model_name_or_path": model,
        "train_data_dir": pictures,
        "caption_column": "caption",
        "output_dir": out,
        "resolution": SIZE,
        "train_batch_size": BATCH,
        "rank": RANK,
        "max_train_steps": steps,
        "checkpointing_steps": 10**6,
        "report_to": "all",
        "seed": 0,
        "mixed_precision": "bf16" if best else "no",
    }
    if best:
        values["pretrained_vae_model_name_or_path"] = model / "vae"
    options = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    return [sys.executable, str(script), "--random_flip", *options]


def our_command(pictures: Path, out: Path, steps: int, recipe: Path, values: Mapping[str, Any]) -> list[str]:
    whole = {
        "data": str(pictures),
        "out": str(out),
        "model": "small",
        "steps": steps,
        "batch_size": BATCH,
        "resolution": SIZE,
        "lora": {"rank": RANK},
        "view": {"crop": "center"},
        "validation": {"every": 0},
        "preview": {"count": 0},
        "checkpoint_every": 10**6,
        **values,
    }
    recipe.write_text(json.dumps(whole), encoding="utf-8")
    return [sys.executable, "-m", "fairhuman.cli", "train", str(recipe)]


def cpu_seconds(command: list[str]) -> float:
    """Run a command; return user plus system time of the process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    options = arguments(__doc__, script="train_text_to_image_lora_sdxl.py of diffusers")
    if options.script is None or not options.script.is_file():
        sys.exit("--script: give the path of diffusers' train_text_to_image_lora_sdxl.py")
    short, long, rounds = (1, 2, 1) if options.quick else (20, 60, 5)
    ours = {
        "LS, float32": {"strategy": "ls", "precision": "fp32"},
        "LS, float32, kept": {"strategy": "ls", "precision": "fp32", "cache": KEPT},
        "LS, bfloat16": {"strategy": "ls", "precision": "bf16"},
        "LS, bfloat16, kept": {"strategy": "ls", "precision": "bf16", "cache": KEPT},
        "MPD, output": {"strategy": "mpd", "precision": "bf16", "cache": KEPT, "fairness": {"mode": "output"}},
        "MPD, exact": {"strategy": "mpd", "precision": "bf16", "cache": KEPT, "fairness": {"mode": "exact"}},
    }
    for values in ours.values():
        values["fairness"] = {"measure_every": 0} | values.get("fairness", {})
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pictures = work / "pictures"
        write_noise(pictures, 4 * BATCH, (SIZE, SIZE))

        def run(name: str, steps: int) -> float:
            out = Path(tempfile.mkdtemp(dir=work))
            if name.startswith("script"):
                return cpu_seconds(
                    script_command(options.script, SMALL_FOLDER, pictures, out, steps, best=name.endswith("flags"))
                )
            values = dict(ours[name])
            if "cache" in values:
                values["cache"] = values["cache"] | {"folder": str(work / "cache")}
            return cpu_seconds(our_command(pictures, out / "run", steps, out / "recipe.json", values))

        names = ["script, float32", "script, best flags", *ours]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                seconds[name].append((run(name, long) - run(name, short)) / (long - short))
                print(f"{name}: {seconds[name][-1]:.3f} s a step", flush=True)
    results = {
        name: {
            "cpu_s": spread(of),
            "speed_to_script_float32": spread(a / b for a, b in zip(seconds["script, float32"], of, strict=True)),
            "speed_to_script_best_flags": spread(a / b for a, b in zip(seconds["script, best flags"], of, strict=True)),
        }
        for name, of in seconds.items()
    }
    settings = {"batch": BATCH, "rank": RANK, "px": SIZE, "steps": [short, long], "rounds": rounds}
    save("diffusers_script", settings, results, options)


if __name__ == "__main__":
    main()
