"""Settings of detectors, and one function that runs those of faces, hands and persons on a picture.

What finds further regions, `detect.regions`, is in `named_regions`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fairhuman.config import Settings
from fairhuman.detect.body import BodyFinder
from fairhuman.detect.bundled import source_name
from fairhuman.detect.detection import PARTS, Detection, Detector, Picture, check_picture
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.found_region import BODY_PARTS
from fairhuman.detect.hand_vote import VOTERS, HandVote
from fairhuman.detect.model_file import find_model, hashed_file_name
from fairhuman.detect.onnx import OnnxDetector
from fairhuman.detect.persons import PersonDetector
from fairhuman.detect.scale import enlarge, scale_back
from fairhuman.detect.whole_body import WholeBodyDetector, whole_body_source
from fairhuman.record import IGNORE, REGION_COLUMNS, SUBJECT
from fairhuman.utils.plugins import DETECTORS, check_name, load_plugin, misfit, plugin_package

Part = Literal["face", "hand", "person"]
Kind = Literal["mediapipe", "onnx", "whole-body"]
KindName = Annotated[Kind | str, AfterValidator(lambda name: check_name(name, get_args(Kind), DETECTORS))]
"""One of ours, or an entry point of the group `fairhuman.detectors`."""
DetectParts = Callable[[Picture], dict[str, list[Detection]]]
BUNDLED = "mediapipe"
TAKEN = ("global", IGNORE, SUBJECT, *REGION_COLUMNS, *REGION_COLUMNS.values())
FOR_REGIONS = ("regions", "max_persons", "words")  # settings of further regions alone
REGION_NAME = re.compile(r"[a-z][a-z0-9_-]*")  # readers of WebDataset lower-case the names of masks


class MediaPipeSettings(Settings):
    """The bundled models, which need no download."""

    face_confidence: float = Field(default=0.5, ge=0.0, le=1.0, description="minimum score of a face")
    hand_votes: int = Field(default=2, ge=1, le=VOTERS, description="passes, of five, that must find a hand to keep it")
    hand_confidence: float = Field(default=0.2, ge=0.0, le=1.0, description="minimum score of a palm in each pass")
    person_confidence: float = Field(default=0.5, ge=0.0, le=1.0, description="minimum score of a person")


class OnnxSettings(Settings):
    """YOLO-style models."""

    models: dict[Part, str] = Field(
        default_factory=dict,
        description="part to path or hub id (owner/name:file.onnx); one file may serve several parts",
    )
    names: tuple[str, ...] = Field(default=(), description="class names in order, for models whose metadata lacks them")
    confidence: float = Field(default=0.5, ge=0.0, le=1.0, description="minimum score")
    overlap: float = Field(default=0.5, ge=0.0, le=1.0, description="IoU threshold of non-maximum suppression")


class WholeBodySettings(Settings):
    """Whole-body pose: RTMW or DWPose."""

    detector: str = Field(default="", description="YOLOX person detector: path or hub id (owner/name:file.onnx)")
    pose: str = Field(default="", description="pose model with 133 key points: path or hub id")
    confidence: float = Field(default=0.3, ge=0.0, le=1.0, description="minimum mean score of a part's key points")


def _named(regions: Any) -> Any:
    """A name or a list of names is found by the bundled models."""
    names = [name.strip() for name in regions.split(",")] if isinstance(regions, str) else regions
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return dict.fromkeys(names, BUNDLED)
    return {} if names is None else names


def _findable(regions: dict[str, str]) -> dict[str, str]:
    for name, words in regions.items():
        if name in TAKEN or not REGION_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} can't be the name of a further region: take lower-case letters, digits, _ and -, a letter "
                f"first, and not {', '.join(TAKEN)}; faces, hands and persons have detectors of their own"
            )
        if not words.strip():
            raise ValueError(f"{name} must have words, such as 'the {name}', or {BUNDLED}")
        if words == BUNDLED and name not in BODY_PARTS:
            raise ValueError(
                f"{name!r} is found by no bundled model, they find {', '.join(BODY_PARTS)}; say it in words: "
                f"{{{name}: 'the {name}'}}"
            )
    return regions


FurtherRegions = Annotated[dict[str, str], BeforeValidator(_named), AfterValidator(_findable)]
"""Name to `mediapipe` or to words; a list of names is short for mediapipe."""


class WordsSettings(Settings):
    """Open-vocabulary models of transformers, which find regions that are named in words."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"batch_size", "device"})

    model: str = Field(
        default="IDEA-Research/grounding-dino-tiny",
        description="finds boxes (Grounding DINO, OWL-ViT, OWLv2) or masks (CLIPSeg): folder or hub id",
    )
    outline: str | None = Field(
        default="facebook/sam-vit-base",
        description="turns boxes into masks (SAM, SAM 2): folder or hub id; null: boxes alone. CLIPSeg needs none",
    )
    confidence: float = Field(
        default=0.3, ge=0.0, le=1.0, description="minimum score of a box; of CLIPSeg, minimum probability of a pixel"
    )
    overlap: float = Field(
        default=0.5, ge=0.0, le=1.0, description="IoU above which of two boxes only the better stays"
    )
    largest: float = Field(
        default=0.9,
        gt=0.0,
        le=1.0,
        description="share of the picture above which a box or piece is dropped: a sign that nothing was found",
    )
    device: str | None = Field(default=None, description="null: a GPU if there is one")
    batch_size: int = Field(default=4, ge=1, description="pictures per batch")


class DetectSettings(Settings):
    """The detector of each part; null: that part isn't detected."""

    face: KindName | None = Field(
        default="mediapipe",
        description="detector of faces: one of these, or a plug-in of fairhuman.detectors; null: none",
    )
    hand: KindName | None = Field(
        default="mediapipe",
        description="detector of hands: one of these, or a plug-in of fairhuman.detectors; null: none",
    )
    person: KindName | None = Field(
        default="mediapipe",
        description="detector of persons: one of these, or a plug-in of fairhuman.detectors; null: none",
    )
    regions: FurtherRegions = Field(
        default_factory=dict,
        description="further regions, name to what finds it: 'mediapipe' ("
        + ", ".join(BODY_PARTS)
        + "), or words for the models of `words`, such as 'the shoes'; a list of names is short for mediapipe",
    )
    max_persons: int = Field(
        default=8, ge=1, description="persons in a picture of whom the bundled models find the parts named in `regions`"
    )
    upscale: int = Field(default=4, ge=1, description="factor by which pictures of up to 256 px are enlarged first")
    mediapipe: MediaPipeSettings = MediaPipeSettings()
    onnx: OnnxSettings = OnnxSettings()
    whole_body: WholeBodySettings = WholeBodySettings()
    words: WordsSettings = WordsSettings()

    def decisive(self) -> dict[str, Any]:
        """What the boxes of faces, hands and persons depend on: further regions have a table of their own."""
        return {name: value for name, value in super().decisive().items() if name not in FOR_REGIONS}

    @property
    def kinds(self) -> dict[Part, str]:
        """The detected parts and their kinds of detectors."""
        named: Mapping[Part, str | None] = {"face": self.face, "hand": self.hand, "person": self.person}
        return {part: kind for part, kind in named.items() if kind is not None}

    @model_validator(mode="after")
    def _check(self) -> "DetectSettings":
        if not self.kinds and not self.regions:
            raise ValueError("face, hand and person are all null: at least one part needs a detector")
        for part, kind in self.kinds.items():
            if kind == "onnx" and part not in self.onnx.models:
                raise ValueError(f"{part} is found by onnx, so onnx.models.{part} must name a model")
        if "whole-body" in self.kinds.values() and not (self.whole_body.detector and self.whole_body.pose):
            raise ValueError("a part is found by whole-body, so whole_body.detector and whole_body.pose must be given")
        return self


def detector_names(settings: DetectSettings) -> dict[Part, str]:
    """Part to the name of its detector, the `source` of its detections; loads no model.

    Of a detector that another package adds: its name and the package's version, so that another version counts as
    another detector.

    Raises:
        DetectorError: a model file is missing.
    """
    return {
        part: NAMES[kind](settings, part) if kind in NAMES else f"{kind}, {plugin_package(DETECTORS, kind)}"
        for part, kind in settings.kinds.items()
    }


@contextmanager
def open_detectors(settings: DetectSettings) -> Iterator[DetectParts]:
    """Open a function from an upright RGB picture [H, W, 3], uint8, to its detections by part, best first.

    Pass `functools.partial(open_detectors, settings)` to `Guarded` and `guarded_map`.

    Raises:
        DetectorError: a detector can't be loaded.
        PluginError: the same of one that another package adds.
    """
    kinds = settings.kinds
    with ExitStack() as stack:
        opened: list[tuple[Sequence[Part], Detector]] = []
        for kind in dict.fromkeys(kinds.values()):
            parts = [part for part, finder in kinds.items() if finder == kind]
            try:
                makers = KINDS[kind](settings, parts) if kind in KINDS else _added(kind, parts)
                opened += [(served, stack.enter_context(make())) for served, make in makers]
            except Exception as error:
                error.add_note(kind)  # which detector it was; `worker` puts it into its message
                raise

        def find(image: Picture) -> dict[str, list[Detection]]:
            larger, factor = enlarge(check_picture(image), settings.upscale)
            found: dict[str, list[Detection]] = {part: [] for part in kinds}
            for served, detector in opened:
                for one in detector.detect(larger):
                    if PARTS[one.label] in served:
                        found[PARTS[one.label]].append(scale_back(one, factor))
            return found

        yield find


Makers = list[tuple[Sequence[Part], Callable[[], Detector]]]


def _mediapipe(settings: DetectSettings, parts: Sequence[Part]) -> Makers:
    own = settings.mediapipe
    bodies = lru_cache(BodyFinder)  # one for both parts that look at the body
    makers: Mapping[Part, Callable[[], Detector]] = {
        "face": lambda: FaceDetector(own.face_confidence),
        "hand": lambda: HandVote(own.hand_votes, own.hand_confidence, bodies=bodies(), brief=True),
        "person": lambda: PersonDetector(own.person_confidence, bodies()),
    }
    return [([part], makers[part]) for part in parts]


def _onnx(settings: DetectSettings, parts: Sequence[Part]) -> Makers:
    own = settings.onnx
    served: dict[str, list[Part]] = {}
    for part in parts:
        served.setdefault(own.models[part], []).append(part)

    def maker(model: str) -> Callable[[], Detector]:
        return lambda: OnnxDetector(
            model, served[model], names=own.names, confidence=own.confidence, overlap=own.overlap
        )

    return [(of_model, maker(model)) for model, of_model in served.items()]


def _whole_body(settings: DetectSettings, parts: Sequence[Part]) -> Makers:
    own = settings.whole_body
    return [(parts, lambda: WholeBodyDetector(own.detector, own.pose, own.confidence))]


def _added(kind: str, parts: Sequence[Part]) -> Makers:
    """A detector of another package: an entry point of the group `fairhuman.detectors`.

    It is a class or function that takes the parts to look for and gives a `Detector`; called in each process that
    detects.
    """
    make: Callable[[Sequence[Part]], Detector] = load_plugin(DETECTORS, kind)
    if not callable(make):
        raise misfit(DETECTORS, kind, "a class or function that gives a Detector", make)
    return [(parts, partial(make, parts))]


def _whole_body_name(settings: DetectSettings, _: Part) -> str:
    return whole_body_source(find_model(settings.whole_body.detector), find_model(settings.whole_body.pose))


KINDS: Mapping[str, Callable[[DetectSettings, Sequence[Part]], Makers]] = {
    "mediapipe": _mediapipe,
    "onnx": _onnx,
    "whole-body": _whole_body,
}
MEDIAPIPE_MODELS: Mapping[Part, str] = {
    "face": FaceDetector.MODEL,
    "hand": HandVote.MODEL,
    "person": PersonDetector.MODEL,
}
NAMES: Mapping[str, Callable[[DetectSettings, Part], str]] = {
    "mediapipe": lambda _, part: source_name(MEDIAPIPE_MODELS[part]),
    "onnx": lambda settings, part: f"onnx {hashed_file_name(find_model(settings.onnx.models[part]))}",
    "whole-body": _whole_body_name,
}
