"""Cache of texts: the text encoders are frozen, so a caption need not be encoded again."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from fairhuman.bases.base import Base
from fairhuman.bases.latents import check_finite
from fairhuman.data.samples.batch import Batch, Text
from fairhuman.data.samples.encodings import Encodings
from fairhuman.models.resting import Resting
from fairhuman.utils.files import digest


class TextCache:
    """What the network reads of each caption, as the base packs it: float16 for SDXL, bfloat16 for all others.

    For SDXL this takes 318 KB per caption. As with latents, the first use is rounded like later ones, and each caption
    is encoded alone. The text encoders must be frozen; `precision` is the run's autocast dtype.

    Args:
        kept: the tensors on disk.
        base: of the pipeline, whose text encoders are in main memory.
        precision: the type of autocast.
        device: where text encoders work.

    Attributes:
        encoders: the text encoders, which rest but for what isn't cached and previews.
    """

    def __init__(self, kept: Encodings, base: Base, precision: torch.dtype | None, device: torch.device) -> None:
        self.kept = kept
        self._base, self._precision = base, precision
        self.encoders = Resting(base.text_encoders, device, resting=True)

    def missing(self, captions: Sequence[str]) -> list[str]:
        """Return the captions whose texts aren't cached."""
        return [caption for caption in captions if digest(caption) not in self.kept]

    def with_texts(self, batch: Batch) -> Batch:
        """Return the batch with the texts of its captions."""
        return replace(batch, texts=self.texts(batch.captions))

    def texts(self, captions: Sequence[str]) -> list[Text]:
        """Return the text of each caption, rounded, on the CPU."""
        return [self._text(caption) for caption in captions]

    def _text(self, caption: str) -> Text:
        key = digest(caption)
        packed = self.kept.get(key)
        if packed is None:
            kind, enabled = self.encoders.device.type, self._precision is not None
            with self.encoders.awake(), torch.no_grad(), torch.autocast(kind, self._precision, enabled=enabled):
                text = self._base.encode(caption)
            packed = self._base.packed(text)
            for name, tensor in self._base.unpacked(packed).items():
                check_finite(tensor, f"{name} of {caption!r} in {tensor.dtype}", "they overflow; set cache.text=false")
            self.kept.add(key, packed)
        return self._base.unpacked(packed)
