"""Check that the weights and packages of all chosen metrics are available before an evaluation starts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fairhuman.data.condition.depth_model import open_depth
from fairhuman.detect.detection import DetectorError
from fairhuman.errors import ModelError
from fairhuman.evaluate.networks import clip_score, hps, image_reward, inception
from fairhuman.evaluate.networks.extractor import WeightsError
from fairhuman.evaluate.people.official import official_source
from fairhuman.evaluate.settings import EvaluateSettings


def check_weights(
    settings: EvaluateSettings, with_reference: bool, section: str = "", *, download: bool = True
) -> None:
    """Check that the weights files of all chosen groups exist, and download those that come from the hub.

    Of official confidences, that MediaPipe is installed.

    Their content is checked when they are loaded.

    Args:
        settings: the evaluation.
        with_reference: whether there are real pictures.
        section: what names of settings begin with in the recipe, such as `evaluate.`.
        download: False: only ask the hub.

    Raises:
        WeightsError: files are missing; names them, and the groups that run without them.
    """
    missing: dict[str, str] = {}
    for name in settings.metrics:
        try:
            _find(name, settings, with_reference, section, download)
        except (WeightsError, ModelError, DetectorError) as error:
            missing[name] = str(error)
    if missing:
        raise _without(settings, missing, section)


@contextmanager
def leaving_out(settings: EvaluateSettings, name: str) -> Iterator[None]:
    """Extend a `WeightsError` by the names of the groups that run without these weights."""
    try:
        yield
    except WeightsError as error:
        raise _without(settings, {name: str(error)}) from error


def _find(name: str, settings: EvaluateSettings, with_reference: bool, section: str, download: bool) -> None:
    sources = {
        "hps": [(hps.SOURCE, settings.hps.weights)],
        "image_reward": [
            (image_reward.SOURCE, settings.image_reward.weights),
            (image_reward.TOKENIZER, settings.image_reward.tokenizer),
        ],
        "clip_score": [(clip_score.SOURCE, settings.clip_score.weights)],
    }
    for source, given in sources.get(name, ()):
        if download:
            source.find(given, section)
        else:
            source.check(given, section)
    if name == "fid" and with_reference:
        inception.find_weights(settings.inception.weights, section)
    elif name == "official":
        official_source()
    elif name == "depth_agreement" and settings.depth is not None and download:
        with open_depth(settings.depth):
            pass


def _without(settings: EvaluateSettings, missing: Mapping[str, str], section: str = "") -> WeightsError:
    names = ", ".join(map(repr, missing))
    others = ", ".join(group for group in settings.metrics if group not in missing) or "none"
    whole = ". ".join(missing.values())
    return WeightsError(f"{whole}. Or leave {names} out of {section}metrics; other groups: {others}")
