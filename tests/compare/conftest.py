"""Training that takes no time, for tests of comparisons."""

import json

import numpy as np
import pytest

from fairhuman import config
from fairhuman.compare import runs as ablation
from fairhuman.errors import FairHumanError

NAMES = ("global", "face", "hand")


@pytest.fixture
def train(monkeypatch):
    """Training that writes held-out losses of 40 samples, as `effects` has them; runs named in `broken` fail."""
    effects = {"ls": (0.02, -0.01, -0.03), "mpd": (0.0, -0.03, -0.03), "si": (0.01, -0.02, -0.03)}
    trained, broken = [], set()

    def run_jobs(jobs, display, at_once, ended, stage):
        for job in jobs:
            recipe = config.load(ablation.TrainRecipe, job.log.with_suffix(".yaml"))
            trained.append(recipe)
            if job.name in broken:
                ended(job, FairHumanError(f"{job.name} ended with exit code 1"))
                continue
            recipe.out.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(recipe.seed)
            base = rng.uniform(0.5, 2.0, (3, 40))
            strength = min(recipe.learning_rate / 1e-3, 1.0)
            after = base * (1 + strength * np.array(effects[recipe.strategy])[:, None] + rng.normal(0, 0.01, (3, 40)))
            with (recipe.out / "validation.jsonl").open("w") as file:
                for step, errors in ((0, base), (10, after)):
                    found = {n: {"error": e.tolist(), "area": [1.0] * 40} for n, e in zip(NAMES, errors, strict=True)}
                    keys = [f"{number:02d}" for number in range(40)]
                    file.write(json.dumps({"step": step, "keys": keys, "objectives": found}) + "\n")
            ended(job, None)

    monkeypatch.setattr(ablation, "run_jobs", run_jobs)
    return trained, broken
