"""Regions by words: open-vocabulary detection and segmentation with models of transformers.

Each phrase is asked by itself, so that one doesn't change what another finds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fairhuman.detect.detection import Picture, check_picture, clipped_box
from fairhuman.detect.found_region import FoundRegion, Mask, pieces_of
from fairhuman.detect.overlap import corners, non_maximum_suppression
from fairhuman.detect.settings import WordsSettings
from fairhuman.record import Box
from fairhuman.utils.closing import Closing
from fairhuman.utils.hub import loading, refuse_pickles
from fairhuman.utils.torch_device import Halving, device_named

SEGMENTERS = ("clipseg",)  # the `model_type` of models that give masks themselves
BOXES_AT_ONCE = 32  # of one picture
SETTING = "words"  # of `detect` in a build, and of a refinement

Query = tuple[Picture, str]
Gives = Literal["boxes", "masks", "outlines"]
FINDERS = "a zero-shot detector (Grounding DINO, OWL-ViT, OWLv2) or CLIPSeg"
EXPECTED: Mapping[Gives, str] = {"boxes": FINDERS, "masks": FINDERS, "outlines": "SAM or SAM 2"}


class WordsFinder(Closing):
    """Finds regions by phrases.

    A model of boxes is followed by one that outlines them, if `outline` names it. The score of a box is the model's;
    of a mask without a box, the mean probability of each of its pieces.

    `source` is the models' names, as stored with what they find.

    Args:
        settings: the models, their thresholds, batch and device.
        words: name of each region to the phrase.

    Raises:
        ModelError: a model can't be loaded, or is of another kind.
    """

    def __init__(self, settings: WordsSettings, words: Mapping[str, str]) -> None:
        self._settings, self._words = settings, dict(words)
        self._queries, self._boxes = Halving(), Halving()
        self._device = device_named(f"{SETTING}.device", settings.device)
        self._kind = _kind_of(settings.model)
        self._masks = self._kind in SEGMENTERS
        gives: Gives = "masks" if self._masks else "boxes"
        self._finder = _load(f"{SETTING}.model", settings.model, gives, self._device)
        self._outliner: tuple[Any, Any] | None = None
        if settings.outline is not None and not self._masks:
            self._outliner = _load(f"{SETTING}.outline", settings.outline, "outlines", self._device)
        models = (settings.model, *((settings.outline,) if self._outliner is not None else ()))
        self.source = f"transformers {' '.join(map(str, models))}"

    def find(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[dict[str, FoundRegion]]:
        """Of each picture [H, W, 3] the regions among its `names` that are found.

        Raises:
            ModelError: memory is insufficient for a single picture.
        """
        places = [(number, name) for number, wanted in enumerate(names) for name in wanted]
        checked = [check_picture(picture) for picture in pictures]
        queries = [(checked[number], self._words[name]) for number, name in places]
        size = self._settings.batch_size
        answers = [one for start in range(0, len(queries), size) for one in self._ask(queries[start : start + size])]
        found: list[dict[str, FoundRegion]] = [{} for _ in pictures]
        for (number, name), region in zip(places, answers, strict=True):
            if region is not None:
                found[number][name] = region
        if self._outliner is not None:
            found = [self._outlined(picture, regions) for picture, regions in zip(checked, found, strict=True)]
        return found

    def close(self) -> None:
        """Free the models; a second call does nothing."""
        self._finder, self._outliner = (None, None), None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _ask(self, queries: Sequence[Query]) -> list[FoundRegion | None]:
        """The region of each query; splits the batch if memory runs out."""
        return self._queries.results(
            self._segment if self._masks else self._detect, queries, lambda query: self._too_large(query[0], "model")
        )

    def _too_large(self, picture: Picture, setting: Literal["model", "outline"]) -> str:
        height, width = picture.shape[:2]
        return (
            f"{getattr(self._settings, setting)}: not enough memory for a picture of {width}x{height}; take a smaller "
            f"{SETTING}.{setting}, or {SETTING}.device=cpu"
        )

    @torch.inference_mode()
    def _detect(self, queries: Sequence[Query]) -> list[FoundRegion | None]:
        processor, model = self._finder
        inputs = processor(
            images=[Image.fromarray(picture) for picture, _ in queries],
            text=[[words] for _, words in queries],
            padding="max_length" if self._kind.startswith("owl") else True,
            truncation=True,
            return_tensors="pt",
        )
        sizes = [picture.shape[:2] for picture, _ in queries]
        results = processor.image_processor.post_process_object_detection(
            model(**self._moved(inputs)), threshold=self._settings.confidence, target_sizes=sizes
        )
        return [
            self._best(one["boxes"].tolist(), one["scores"].tolist(), picture)
            for one, (picture, _) in zip(results, queries, strict=True)
        ]

    def _best(self, boxes: list[list[float]], scores: list[float], picture: Picture) -> FoundRegion | None:
        """Boxes within the picture that aren't nearly all of it, without those that another one covers."""
        limit = self._settings.largest * picture.shape[0] * picture.shape[1]
        clipped = [
            clipped_box(x0, y0, x1, y1, min(score, 1.0), picture)
            for (x0, y0, x1, y1), score in zip(boxes, scores, strict=True)
        ]
        fitting = [box for box in clipped if box is not None and box.area <= limit]
        if not fitting:
            return None
        scores_n = np.array([box.score for box in fitting], dtype=np.float64)
        kept = non_maximum_suppression(corners(fitting), scores_n, self._settings.overlap)
        return FoundRegion(tuple(fitting[index] for index in kept))

    @torch.inference_mode()
    def _segment(self, queries: Sequence[Query]) -> list[FoundRegion | None]:
        processor, model = self._finder
        inputs = processor(
            images=[Image.fromarray(picture) for picture, _ in queries],
            text=[words for _, words in queries],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        logits = model(**self._moved(inputs)).logits
        logits_nhw = logits.reshape(len(queries), *logits.shape[-2:])
        return [
            pieces_of(resized(logits_hw, picture), self._settings.confidence, self._settings.largest)
            for logits_hw, (picture, _) in zip(logits_nhw, queries, strict=True)
        ]

    @torch.inference_mode()
    def _outlined(self, picture: Picture, regions: dict[str, FoundRegion]) -> dict[str, FoundRegion]:
        """The regions with the masks of their boxes; the picture is read once, with all boxes of all regions."""
        assert self._outliner is not None
        boxes = [box for region in regions.values() for box in region.boxes]
        masks: list[Mask] = []
        for start in range(0, len(boxes), BOXES_AT_ONCE):
            masks += self._boxes.results(
                lambda part: self._outline(picture, part),
                boxes[start : start + BOXES_AT_ONCE],
                lambda _: self._too_large(picture, "outline"),
            )
        outlined, done = {}, 0
        for name, region in regions.items():
            own = masks[done : done + len(region.boxes)]
            done += len(region.boxes)
            mask_hw = np.logical_or.reduce(own)
            outlined[name] = FoundRegion(region.boxes, mask_hw) if mask_hw.any() else region
        return outlined

    def _outline(self, picture: Picture, boxes: Sequence[Box]) -> list[Mask]:
        """The mask of each box, [H, W]."""
        assert self._outliner is not None
        processor, model = self._outliner
        corners_n4 = [[box.x0, box.y0, box.x1, box.y1] for box in boxes]
        inputs = processor(images=Image.fromarray(picture), input_boxes=[corners_n4], return_tensors="pt")
        sizes = {key: inputs[key] for key in ("original_sizes", "reshaped_input_sizes") if key in inputs}
        given = self._moved({key: inputs[key] for key in ("pixel_values", "input_boxes")})
        outputs = model(**given, multimask_output=False)
        (masks,) = processor.post_process_masks(outputs.pred_masks.cpu(), **sizes)
        masks_nhw = masks.reshape(len(boxes), *masks.shape[-2:]) > 0
        return list(masks_nhw.numpy())

    def _moved(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A processor's tensors on the device, numbers with a point in float32."""
        return {
            key: value.to(self._device, torch.float32 if value.is_floating_point() else None)
            for key, value in inputs.items()
        }


def resized(logits_hw: Tensor, picture: Picture) -> NDArray[np.float32]:
    """Probabilities [H, W] of a picture from logits of any size."""
    size = picture.shape[:2]
    larger = F.interpolate(logits_hw[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    return np.asarray(larger.sigmoid().cpu().numpy(), dtype=np.float32)


def _kind_of(name: str) -> str:
    """The `model_type` of a folder or hub id."""
    from transformers import AutoConfig

    with loading(f"{SETTING}.model {name!r}", name, "a model of transformers"):
        return str(AutoConfig.from_pretrained(name, trust_remote_code=False).model_type)


def _load(setting: str, name: str, gives: Gives, device: torch.device) -> tuple[Any, Any]:
    """Processor and model."""
    from transformers import (
        AutoModelForMaskGeneration,
        AutoModelForZeroShotObjectDetection,
        AutoProcessor,
        CLIPSegForImageSegmentation,
    )

    refuse_pickles(f"{setting} {name!r}", name)
    options = {"dtype": torch.float32}
    with loading(f"{setting} {name!r}", name, EXPECTED[gives]):
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
        model: Any
        if gives == "boxes":
            model = AutoModelForZeroShotObjectDetection.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, **options
            )
        elif gives == "masks":
            model = CLIPSegForImageSegmentation.from_pretrained(name, use_safetensors=True, **options)
        else:
            model = AutoModelForMaskGeneration.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, **options
            )
    return processor, model.to(device).eval()
