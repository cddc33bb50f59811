"""Captions from a local vision-language model: any `image-text-to-text` chat model of transformers."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from fairhuman.data.caption.item import Caption, Captioner, CaptionItem
from fairhuman.data.caption.settings import TransformersSettings
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.caption.vision import caption_from_answer, fill_prompt, load_picture
from fairhuman.detect.worker import Failure
from fairhuman.errors import ModelError
from fairhuman.utils.hub import loading, refuse_pickles
from fairhuman.utils.torch_device import Halving, device_named

Query = tuple[str, Image.Image]  # the prompt and its picture


class TransformersCaptioner(Captioner):
    """Captions batches of pictures with greedy decoding.

    The model's weights are bfloat16 on a GPU, else float32. A batch is padded on the left, so that each picture gets
    the same answer as alone, up to rounding.

    Raises:
        ModelError: the model can't be loaded, is of another kind, or has no chat template.
    """

    def __init__(self, settings: TransformersSettings, budget: TokenBudget) -> None:
        self.name, self.batch_size = f"transformers:{settings.model}", settings.batch_size
        self._settings, self._budget, self._halving = settings, budget, Halving()
        self._device = device_named("transformers.device", settings.device)
        self._processor, self._model = _load(settings.model, self._device)

    def caption(self, items: Sequence[CaptionItem]) -> list[Caption | Failure]:
        """A caption for each item; a failure if its picture can't be read or the answer is empty.

        Raises:
            ModelError: memory is insufficient for a single picture.
        """
        results: list[Caption | Failure | None] = [None] * len(items)
        queries: list[tuple[int, Query]] = []
        for index, item in enumerate(items):
            picture = load_picture(item, self._settings.longest_side)
            if isinstance(picture, Failure):
                results[index] = picture
            else:
                queries.append((index, (fill_prompt(self._settings.prompt, self._budget, item.text), picture)))
        for start in range(0, len(queries), self.batch_size):
            indices, batch = zip(*queries[start : start + self.batch_size], strict=True)
            for index, (text, unfinished) in zip(indices, self._answer(batch), strict=True):
                results[index] = caption_from_answer(text, unfinished, self._budget)
        return [result for result in results if result is not None]

    def close(self) -> None:
        """Free the memory."""
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _answer(self, queries: Sequence[Query]) -> list[tuple[str, bool]]:
        """Answers, and whether each was truncated by the limit on new tokens; splits the batch if memory runs out."""
        return self._halving.results(self._generate, queries, self._too_large)

    def _too_large(self, query: Query) -> str:
        width, height = query[1].size
        return (
            f"{self.name}: not enough memory for a picture of {width}x{height}; "
            f"lower transformers.longest_side, which is {self._settings.longest_side}"
        )

    @torch.inference_mode()
    def _generate(self, queries: Sequence[Query]) -> list[tuple[str, bool]]:
        inputs = self._prepare(queries)
        output_bn = self._model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._settings.max_new_tokens,
            pad_token_id=self._processor.tokenizer.pad_token_id,
        )
        answers_bn = output_bn[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(answers_bn, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return list(zip(texts, [not self._ended(answer) for answer in answers_bn.tolist()], strict=True))

    def _prepare(self, queries: Sequence[Query]) -> Any:
        prompts = [self._prompt(text) for text, _ in queries]
        start_token = self._processor.tokenizer.bos_token
        inputs = self._processor(
            text=prompts,
            images=[[picture] for _, picture in queries],
            padding=True,
            padding_side="left",
            add_special_tokens=not (start_token and prompts[0].startswith(start_token)),
            return_tensors="pt",
        )
        return inputs.to(self._device, dtype=self._model.dtype)

    def _prompt(self, text: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": text}]
        prompt: str = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return prompt

    def _ended(self, answer: list[int]) -> bool:
        """Whether an answer holds an end token."""
        ends = self._model.generation_config.eos_token_id
        return not set(answer).isdisjoint(ends if isinstance(ends, list) else [ends])


def _load(name: str, device: torch.device) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    refuse_pickles(f"transformers.model {name!r}", name)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with loading(f"transformers.model {name!r}", name, "an image-text-to-text model"):
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            name, dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
        model = model.to(device).eval()
    if getattr(processor, "chat_template", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ModelError(f"transformers.model {name!r}: expected a chat model, found no chat template")
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    for option in ("temperature", "top_p", "top_k", "min_p", "typical_p"):  # transformers warns about unused options
        setattr(model.generation_config, option, None)
    return processor, model
