"""Cost of `fairhuman evaluate`: seconds per 1024 px picture, peak memory, and the total for 5,000 pictures.

    .venv/bin/python benchmarks/evaluation.py [--quick] [--parts no-download hps ...]

Each part is a separate command with two workers on synthetic people. Networks that need weights have their original
architecture and random weights, as their time doesn't depend on the outputs. Loading is reported separately from the
seconds per picture; features and detections aren't cached before.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from transformers import BertTokenizer, BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel

from common import arguments, save
from fairhuman.evaluate.metrics.distances import measure_frechet, measure_kernel
from fairhuman.evaluate.networks.blip import TEXT, VISION, RewardNetwork
from fairhuman.evaluate.pace import PLANNED
from fairhuman.models.tokenizer import build_tokenizer
from fairhuman.stats.paired import ratio
from fairhuman.synth.people import write_people
from fairhuman.synth.settings import SynthSettings

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# ViT-L/14 as in openai/clip-vit-large-patch14, config.json
CLIP_VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
CLIP_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}


def hps(folder: Path) -> list[str]:
    """Return settings with HPS v2.1's network."""
    network = open_clip.CLIP(**open_clip.get_model_config("ViT-H-14"))
    torch.save({"state_dict": network.state_dict()}, folder / "hps.pt")
    return ["metrics=[hps]", f"hps.weights={folder / 'hps.pt'}"]


def image_reward(folder: Path) -> list[str]:
    """Return settings with ImageReward's network."""
    network = RewardNetwork(BlipVisionConfig(**VISION), BlipTextConfig(**TEXT))
    torch.save(network.state_dict(), folder / "reward.pt")
    words = [*MARKS, *(f"word{number}" for number in range(TEXT["vocab_size"] - 2 - len(MARKS)))]
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder / "bert")
    given = {"weights": folder / "reward.pt", "tokenizer": folder / "bert"}
    return ["metrics=[image_reward]", *(f"image_reward.{name}={path}" for name, path in given.items())]


def clip_score(folder: Path) -> list[str]:
    """Return settings with CLIP ViT-L/14."""
    tokenizer = build_tokenizer(max_length=77)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**CLIP_TEXT, **ends}, vision_config={**CLIP_VISION, "patch_size": 14}, projection_dim=768
    )
    CLIPModel(config).save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    return ["metrics=[clip_score]", f"clip_score.weights={folder / 'clip'}"]


def fid(folder: Path) -> list[str]:
    """Return settings with the Inception network of FID."""

    class Empty(FeatureExtractorInceptionV3):  # type: ignore[misc]  # torch-fidelity has no types
        """Skips the weights that the original would download."""

        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """Keep the random weights."""

    torch.save({}, folder / "none.pt")
    network = Empty("inception", ["2048"], feature_extractor_weights_path=str(folder / "none.pt"))
    torch.save(network.state_dict(), folder / "inception.pt")
    return ["metrics=[fid]", f"inception.weights={folder / 'inception.pt'}"]


PARTS: Mapping[str, Callable[[Path], list[str]]] = {
    "no-download": lambda _: [],
    "hps": hps,
    "image_reward": image_reward,
    "clip_score": clip_score,
    "fid": fid,
}


def measured(people: Path, settings: list[str], folder: Path) -> dict[str, Any]:
    """Return a command's seconds per picture by kind of work, total seconds, peak memory, and 5,000 pictures' time."""
    out, began = folder / "out", time.perf_counter()
    command = [sys.executable, "-m", "fairhuman.cli", "evaluate", str(people), "--reference", str(people)]
    folders = ["--out", str(out), "--cache", str(folder / "cache")]
    subprocess.run([*command, *folders, *settings, "workers=2"], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    found = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    seconds = {what: one["seconds"] for what, one in found["seconds_per_picture"].items()}
    timed = sum(one["seconds"] * one["pictures"] for one in found["seconds_per_picture"].values())
    return {
        "seconds_per_picture": seconds,
        "starting_s": wall - timed,
        "peak_mb": found["peak_mb"],
        f"minutes_of_{PLANNED}": (wall - timed + PLANNED * sum(seconds.values())) / 60,
    }


def statistics(count: int) -> dict[str, float]:
    """Return seconds of a mean and of distances of 2,048 features, with intervals, by number of pictures."""
    rng = np.random.default_rng(0)
    values_n, ones_nd, others_nd = (rng.normal(size=(count, *width)) for width in ((), (2048,), (2048,)))
    prompts = [str(number) for number in range(count)]
    ways = {
        "mean": lambda: ratio(values_n, np.ones(len(values_n)), prompts),
        "frechet": lambda: measure_frechet(ones_nd, others_nd, prompts, prompts),
        "kernel": lambda: measure_kernel(ones_nd, others_nd, prompts, prompts),
    }
    seconds = {}
    for name, way in ways.items():
        began = time.perf_counter()
        way()
        seconds[name] = time.perf_counter() - began
    return seconds


def main() -> None:
    """Render people and run each part's command."""
    options = arguments(__doc__, (*PARTS, "statistics"))
    people = SynthSettings(count=2 if options.quick else 24, size=64 if options.quick else 1024, seed=9)
    with tempfile.TemporaryDirectory() as work:
        write_people(Path(work) / "people", people)
        for part in options.parts:
            folder = Path(work) / part
            folder.mkdir()
            if part == "statistics":
                result: dict[str, Any] = statistics(30 if options.quick else PLANNED)
            else:
                result = measured(Path(work) / "people", PARTS[part](folder), folder)
            print(f"{part}: {result}")
            settings = {**people.model_dump(), "workers": 2, "threads of torch": torch.get_num_threads()}
            save("evaluation", settings, {part: result}, options)


if __name__ == "__main__":
    main()
