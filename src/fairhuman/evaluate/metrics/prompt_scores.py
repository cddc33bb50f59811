"""Metric groups that compare a picture with its prompt: HPS v2.1, ImageReward, CLIPScore."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from fairhuman.evaluate.networks.clip_score import CLIPScore
from fairhuman.evaluate.networks.hps import HumanPreferenceScore
from fairhuman.evaluate.networks.image_reward import ImageReward
from fairhuman.evaluate.networks.prompt_score import PromptScore
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.evaluate.results import EvaluationResults, Methods, Metric
from fairhuman.evaluate.tools import EvaluationTools

METRICS: Mapping[str, Metric] = {
    "hps": Metric(
        "HPS v2.1",
        "higher",
        "100 cos(picture, prompt) in a CLIP fine-tuned on human preferences",
        "details of small hands and faces, since the network sees the picture at 224 px",
        judges="predicted preference",
    ),
    "image_reward": Metric(
        "ImageReward",
        "higher",
        "100 times the standardised reward of a BLIP trained on human rankings",
        "anything outside the centre square, and the prompt beyond its first 35 tokens",
        judges="predicted preference",
    ),
    "clip_score": Metric(
        "CLIPScore",
        "higher",
        "100 max(cos(picture, prompt), 0) in CLIP, by default ViT-L/14; without the factor 2.5 of CLIPScore's authors",
        "the quality of the picture",
        judges="match with the prompt",
    ),
}


def _open(kind: str, tools: EvaluationTools) -> PromptScore:
    settings, device, batch_size = tools.settings, tools.device, tools.settings.batch_size
    if kind == "hps":
        return HumanPreferenceScore(settings.hps.weights, batch_size=batch_size, device=device)
    if kind == "image_reward":
        own = settings.image_reward
        return ImageReward(own.weights, own.tokenizer, batch_size=batch_size, device=device)
    return CLIPScore(settings.clip_score.weights, batch_size=batch_size, device=device)


def measure_score(
    kind: str,
    methods: Methods,
    _: Sequence[EvalImage] | None,
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """Compute one of `METRICS` for all methods."""
    network = _open(kind, tools)
    scores = {}
    for method, pictures in methods.items():
        values_n = network.reported(tools.features(network, pictures))[:, 0].astype(np.float64)
        scores[method] = values_n, np.ones(len(values_n))
    found.add_scores(METRICS[kind], scores, methods, against)
    cut = network.count_truncated(sorted({picture.prompt for pictures in methods.values() for picture in pictures}))
    if cut:
        found.warnings.append(f"{METRICS[kind].name} reads {network.max_tokens} tokens; {cut} prompts are longer")


measure_hps = partial(measure_score, "hps")
measure_image_reward = partial(measure_score, "image_reward")
measure_clip_score = partial(measure_score, "clip_score")
