"""Metric groups that compare sets of whole pictures and of face and hand crops: FID, KID, a distance that ships."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from PIL import Image

from fairhuman.data.pipeline.cache import Key
from fairhuman.evaluate.metrics.confidences import detect_parts
from fairhuman.evaluate.metrics.distances import (
    Distance,
    measure_frechet,
    measure_kernel,
    paired_difference,
    size_warning,
)
from fairhuman.evaluate.networks.efficientnet import TITLE, EfficientNetLite0
from fairhuman.evaluate.networks.extractor import Extractor, Features
from fairhuman.evaluate.networks.features import ImageLike
from fairhuman.evaluate.networks.inception import Inception
from fairhuman.evaluate.people.crops import plan_crops
from fairhuman.evaluate.people.detections import ImageDetections
from fairhuman.evaluate.pictures import PARTS, EvalImage
from fairhuman.evaluate.results import WHOLE, Contrast, EvaluationResults, Methods, Metric, MetricResult, shared_indices
from fairhuman.evaluate.tools import EvaluationTools, by_method
from fairhuman.regions.squares import Square, crop_square
from fairhuman.stats.paired import Difference

BLIND = "individual bad pictures, and faces and hands that are a small part of the picture"
CROP_BLIND = "faces and hands that aren't found, since they give no crop"
FRECHET = "Fréchet distance between Gaussians fitted to the features of both sets"
KERNEL = "unbiased squared MMD between the features of both sets"
Measure = Callable[[Features, Features, Sequence[str], Sequence[str]], Distance]


@dataclass(frozen=True, slots=True)
class EvalCrop:
    """A square crop that is evaluated like a picture; crops of one picture share its group."""

    picture: EvalImage
    square: Square

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"{self.picture.name} {tuple(self.square)}"

    @property
    def prompt(self) -> str:
        """The picture's prompt."""
        return self.picture.prompt

    @property
    def group(self) -> str:
        """The picture's group."""
        return self.picture.group

    def key(self, with_prompt: bool = False) -> Key:
        """Cache key: the picture's key and the square."""
        return self.picture.key(with_prompt) + str(tuple(self.square)).encode()

    def image(self) -> Image.Image:
        """The cropped picture."""
        return crop_square(self.picture.image(), self.square)


def measure_efficientnet(
    methods: Methods,
    reference: Sequence[EvalImage] | None,
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """The Fréchet distance of pictures, and of face and hand crops, that needs no download; it is never called FID.

    Crops are no part of the verdict: how well an ImageNet classifier sees defects of faces and hands isn't known.
    """
    if reference is None:
        found.warnings.append(f"no {TITLE}: it needs a --reference")
        return
    extractor = EfficientNetLite0(batch_size=tools.settings.batch_size, device=tools.device)

    def metrics(part: str) -> dict[Metric, Measure]:
        if part == "":
            return {Metric(TITLE, "lower", FRECHET, BLIND, judges=WHOLE): measure_frechet}
        return {Metric(f"{part} {TITLE}", "lower", FRECHET, CROP_BLIND, judges=""): measure_frechet}

    _measure_pictures_and_crops(TITLE, metrics, extractor, methods, reference, against, tools, found)


def measure_fid(
    methods: Methods,
    reference: Sequence[EvalImage] | None,
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """FID and KID of pictures, and of face and hand crops."""
    if reference is None:
        found.warnings.append("no FID and KID: they need a --reference")
        return
    settings = tools.settings
    extractor = Inception(settings.inception.weights, batch_size=settings.batch_size, device=tools.device)
    suffix = "" if extractor.published else " on other weights"

    def metrics(part: str) -> dict[Metric, Measure]:
        before, blind, judges = (f"{part} ", CROP_BLIND, f"{part}s") if part else ("", BLIND, WHOLE)
        return {
            Metric(f"{before}FID{suffix}", "lower", FRECHET, blind, judges=judges): measure_frechet,
            Metric(f"{before}KID{suffix}", "lower", KERNEL, blind, judges=judges): measure_kernel,
        }

    _measure_pictures_and_crops("FID and KID", metrics, extractor, methods, reference, against, tools, found)


def _measure_pictures_and_crops(
    name: str,
    metrics: Callable[[str], Mapping[Metric, Measure]],
    extractor: Extractor,
    methods: Methods,
    reference: Sequence[EvalImage],
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """Distances of whole pictures, `metrics("")`, and of crops of each part, `metrics(part)`."""
    if _too_few(name, "pictures", methods, reference, found):
        return
    _measure(metrics(""), extractor, _sets(methods, methods, reference, extractor, tools), against, found)
    detected = by_method(methods, lambda pictures: detect_parts(pictures, tools))
    expected = detect_parts(reference, tools)
    for part in PARTS:
        crops = {
            method: _crops(pictures, detected[method], part, method, tools, found)
            for method, pictures in methods.items()
        }
        true = _crops(reference, expected, part, "the reference", tools, found)
        if not _too_few(f"{part} {name}", f"{part} crops", crops, true, found):
            sets = _sets(methods, crops, true, extractor, tools)
            _measure(metrics(part), extractor, sets, against, found)


def _too_few(
    metric: str,
    what: str,
    methods: Mapping[str, Sequence[ImageLike]],
    reference: Sequence[ImageLike],
    found: EvaluationResults,
) -> bool:
    """Whether a set has fewer than 2 pictures or crops, so that its covariance is undefined; adds a warning if so."""
    sets = [*methods.items(), ("the reference", reference)]
    few = [f"{name} has {len(each)}" for name, each in sets if len(each) < 2]
    if few:
        found.warnings.append(f"no {metric}: a distance needs at least 2 {what} in each set, {', '.join(few)}")
    return bool(few)


def _crops(
    pictures: Sequence[EvalImage],
    detected: Sequence[ImageDetections],
    part: str,
    name: str,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> list[EvalCrop]:
    """Crops of detected faces or hands; the same detector is used for all sets."""
    boxes = [[one.box for one in getattr(finding, f"{part}s")] for finding in detected]
    sizes = [(picture.record.width, picture.record.height) for picture in pictures]
    plan = plan_crops(boxes, sizes, min_side=tools.settings.crop_min_side)
    said = (
        f"{part} crops of {name}: {len(plan.crops)} from {plan.pictures} pictures; no {part} found in "
        f"{plan.without_box} pictures, {plan.too_small} boxes below {tools.settings.crop_min_side:g} px"
    )
    if said not in found.warnings:  # two groups measure the same crops
        found.warnings.append(said)
    return [EvalCrop(pictures[place], square) for place, square in plan.crops]


@dataclass(frozen=True)
class _Sets:
    """What distances are measured on.

    Attributes:
        pictures: of each method.
        items: those pictures, or crops of them.
        features: of each method's items.
        reference: real pictures or crops.
        true_md: features of `reference`.
    """

    pictures: Methods
    items: Mapping[str, Sequence[ImageLike]]
    features: Mapping[str, Features]
    reference: Sequence[ImageLike]
    true_md: Features

    def distance(self, measure: Measure, method: str, rows: Sequence[int] | None = None) -> Distance:
        """Distance of a method's items to the reference, of only some rows if given."""
        features_nd, groups = self.features[method], [one.group for one in self.items[method]]
        if rows is not None:
            features_nd, groups = features_nd[list(rows)], [groups[row] for row in rows]
        return measure(features_nd, self.true_md, groups, [one.group for one in self.reference])

    def shared_rows(self, method: str, against: str) -> tuple[list[int], list[int]]:
        """Rows of two methods' items, as many of each picture of both as the one with fewer has there.

        They are drawn in the order of a digest: the detector's order, best first, would favour who has more of them.
        """
        own, other = self._rows_by_picture(method), self._rows_by_picture(against)
        pairs = zip(*shared_indices(self.pictures[method], self.pictures[against]), strict=True)
        both = [pair for a, b in pairs for pair in zip(own.get(a, ()), other.get(b, ()), strict=False)]
        return sorted(row for row, _ in both), sorted(row for _, row in both)

    def _rows_by_picture(self, method: str) -> dict[int, list[int]]:
        """Rows of a method's items by the place of their picture, those of one picture in the order of a digest."""
        places = {picture.name: place for place, picture in enumerate(self.pictures[method])}
        rows: dict[int, list[int]] = {}
        for row, one in sorted(enumerate(self.items[method]), key=lambda pair: sha256(pair[1].key()).digest()):
            rows.setdefault(places[(one.picture if isinstance(one, EvalCrop) else one).name], []).append(row)
        return rows

    def differences(self, measure: Measure, distances: Mapping[str, Distance], against: str) -> dict[str, Difference]:
        """Difference of each method's distance to that of `against`, on the shared rows.

        Distances of sets of different sizes don't compare. A method is left out if both share fewer than two items.
        """
        found = {}
        for method in distances:
            if method == against:
                continue
            own, other = self.shared_rows(method, against)
            if (len(own), len(other)) == (len(self.items[method]), len(self.items[against])):
                found[method] = paired_difference(distances[method], distances[against])
            elif min(len(own), len(other)) > 1:
                found[method] = paired_difference(
                    self.distance(measure, method, own), self.distance(measure, against, other)
                )
        return found


def _sets(
    pictures: Methods,
    items: Mapping[str, Sequence[ImageLike]],
    reference: Sequence[ImageLike],
    extractor: Extractor,
    tools: EvaluationTools,
) -> _Sets:
    true_md = tools.features(extractor, reference)
    return _Sets(
        pictures, items, {name: tools.features(extractor, each) for name, each in items.items()}, reference, true_md
    )


def _measure(
    metrics: Mapping[Metric, Measure], extractor: Extractor, sets: _Sets, against: str | None, found: EvaluationResults
) -> None:
    for size in sorted({len(sets.reference), *map(len, sets.items.values())}):
        warning = size_warning(size, extractor.width)
        if warning is not None:
            found.warnings.append(f"{extractor.name}: {warning}")
    for metric, measure in metrics.items():
        distances = {method: sets.distance(measure, method) for method in sets.items}
        found.results += [MetricResult(metric, method, one.measured()) for method, one in distances.items()]
        if against is None:
            continue
        differences = sets.differences(measure, distances, against)
        found.contrasts += [Contrast(metric, method, against, one) for method, one in differences.items()]
        few = [method for method in distances if method != against and method not in differences]
        found.warnings += [f"no difference in {metric.name}: {name} and {against} share fewer than 2" for name in few]
