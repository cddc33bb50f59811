"""Check that the weights of all chosen metrics are available before an evaluation starts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fairhuman.data.condition.depth_model import open_depth
from fairhuman.errors import ModelError
from fairhuman.evaluate.networks import clip_score, hps, image_reward, inception
from fairhuman.evaluate.networks.extractor import WeightsError
from fairhuman.evaluate.settings import EvaluateSettings


def check_weights(settings: EvaluateSettings, with_reference: bool) -> None:
    """Check that the weights files of all chosen groups exist, and download those that come from the hub.

    Their content is checked when they are loaded.

    Raises:
        WeightsError: files are missing; names them, and the groups that run without them.
    """
    missing: dict[str, str] = {}
    for name in settings.metrics:
        try:
            _find(name, settings, with_reference)
        except (WeightsError, ModelError) as error:
            missing[name] = str(error)
    if missing:
        raise _without(settings, missing)


@contextmanager
def leaving_out(settings: EvaluateSettings, name: str) -> Iterator[None]:
    """Extend a `WeightsError` by the names of the groups that run without these weights."""
    try:
        yield
    except WeightsError as error:
        raise _without(settings, {name: str(error)}) from error


def _find(name: str, settings: EvaluateSettings, with_reference: bool) -> None:
    if name == "hps":
        hps.SOURCE.find(settings.hps.weights)
    elif name == "image_reward":
        image_reward.SOURCE.find(settings.image_reward.weights)
        image_reward.TOKENIZER.find(settings.image_reward.tokenizer)
    elif name == "clip_score":
        clip_score.SOURCE.find(settings.clip_score.weights)
    elif name == "fid" and with_reference:
        inception.find_weights(settings.inception.weights)
    elif name == "depth_agreement" and settings.depth is not None:
        with open_depth(settings.depth):
            pass


def _without(settings: EvaluateSettings, missing: Mapping[str, str]) -> WeightsError:
    names = ", ".join(map(repr, missing))
    others = ", ".join(group for group in settings.metrics if group not in missing) or "none"
    return WeightsError(f"{'. '.join(missing.values())}. Or leave {names} out of metrics; other groups: {others}")
