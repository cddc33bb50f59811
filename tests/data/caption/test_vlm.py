from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from fairhuman.data.caption import open_captioner
from fairhuman.data.caption.item import Caption, CaptionItem
from fairhuman.data.caption.settings import CaptionSettings, TransformersSettings
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.caption.vlm import TransformersCaptioner
from fairhuman.data.pictures.stored import PictureError
from fairhuman.detect.worker import Failure
from fairhuman.errors import ModelError
from helpers.tiny_captioners import make_llava, make_qwen

Items = Callable[..., CaptionItem]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    make_llava(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    make_qwen(folder)
    return folder


def ask(llava: Path, budget: TokenBudget, items: list[CaptionItem], **settings: object) -> list[Caption | Failure]:
    chosen = TransformersSettings(model=str(llava), max_new_tokens=12, device="cpu", **settings)
    with TransformersCaptioner(chosen, budget) as captioner:
        return captioner.caption(items)


@pytest.mark.parametrize("model", ["llava", "qwen"])
def test_a_batch_gives_the_same_answers_as_single_pictures(
    model: str, request: pytest.FixtureRequest, budget: TokenBudget, item: Items
) -> None:
    folder = request.getfixturevalue(model)
    items = [item(n, size=(16 + 14 * n, 24)) for n in range(5)]
    together = ask(folder, budget, items, batch_size=5)
    assert together == ask(folder, budget, items, batch_size=1) == ask(folder, budget, items, batch_size=2)
    assert len({one.text for one in together if isinstance(one, Caption)}) > 2, "the pictures must matter"


def test_the_answer_is_what_greedy_decoding_adds_to_the_prompt(llava: Path, budget: TokenBudget, item: Items) -> None:
    """Against token by token, without generate(), cache or padding."""
    record = item(3)
    settings = TransformersSettings(model=str(llava), max_new_tokens=6, device="cpu", prompt="Say {tokens}")
    with TransformersCaptioner(settings, budget) as captioner:
        (found,) = captioner.caption([record])
        processor, model = captioner._processor, captioner._model
        inputs = processor(
            text="<s>[user]<image>Say 75[answer]",
            images=record.picture(),
            add_special_tokens=False,
            return_tensors="pt",
        )
        ids = inputs["input_ids"]
        assert ids.shape[1] == len("Say 75") + 4 + 3  # four patches, <s>, [user], [answer]
        start = ids.shape[1]
        with torch.no_grad():
            for _ in range(6):
                logits = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits
                ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    expected = budget.caption(processor.decode(ids[0, start:], skip_special_tokens=True), "", unfinished=True)
    assert isinstance(found, Caption)
    assert found == expected
    assert "Say" not in found.text


def test_prompts_are_padded_on_the_left(qwen: Path, budget: TokenBudget, item: Items) -> None:
    """The processor's own setting is right, where new words would follow after the padding."""
    with TransformersCaptioner(TransformersSettings(model=str(qwen), device="cpu"), budget) as captioner:
        assert captioner._processor.tokenizer.padding_side == "right"
        mask_bn = captioner._prepare([("Say", item(size=size).picture()) for size in ((16, 16), (40, 40))])[
            "attention_mask"
        ]
    assert mask_bn[0].tolist() == sorted(mask_bn[0].tolist()), "zeros first"
    assert mask_bn[0, 0] == 0
    assert mask_bn[1].all()


def test_pictures_come_in_the_precision_of_the_weights(qwen: Path, budget: TokenBudget, item: Items) -> None:
    with TransformersCaptioner(TransformersSettings(model=str(qwen), device="cpu"), budget) as captioner:
        captioner._model.to(torch.bfloat16)  # as on a GPU
        inputs = captioner._prepare([("Say", item().picture())])
        assert (inputs["pixel_values"].dtype, inputs["input_ids"].dtype) == (torch.bfloat16, torch.int64)
        assert len(captioner.caption([item(0), item(1, size=(50, 30))])) == 2


def test_large_pictures_are_scaled_down(llava: Path, budget: TokenBudget, item: Items) -> None:
    large = item(0, size=(640, 320))
    small = replace(large, picture=lambda: large.picture().resize((64, 32), Image.Resampling.LANCZOS))
    assert ask(llava, budget, [large], longest_side=64) == ask(llava, budget, [small])


def test_a_bad_picture_fails_only_its_record(llava: Path, budget: TokenBudget, item: Items) -> None:
    def broken() -> Image.Image:
        raise PictureError("picture is cut off or damaged", "a.jpg")

    first, bad, last = ask(llava, budget, [item(0), replace(item(1), picture=broken), item(2)])
    assert [first, last] == ask(llava, budget, [item(0), item(2)])
    assert bad == Failure("picture can't be read: picture is cut off or damaged (a.jpg)")


def test_a_batch_that_does_not_fit_is_halved(
    llava: Path, budget: TokenBudget, item: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [item(n) for n in range(5)]
    expected = ask(llava, budget, items, batch_size=5)
    tried, room, generate = [], 2, TransformersCaptioner._generate

    def small_memory(self: TransformersCaptioner, pictures: list[Image.Image]) -> list[tuple[str, bool]]:
        tried.append(len(pictures))
        if len(pictures) > room:
            raise torch.OutOfMemoryError("none left")
        return generate(self, pictures)

    monkeypatch.setattr(TransformersCaptioner, "_generate", small_memory)
    assert ask(llava, budget, items, batch_size=5) == expected
    assert tried == [5, 2, 2, 1], "the size that fitted is kept"
    room = 0
    with pytest.raises(
        ModelError, match=r"not enough memory for a picture of 24x20; lower transformers\.longest_side, which is 1024"
    ):
        ask(llava, budget, items)


def test_a_model_that_can_not_be_loaded_is_named(llava: Path, budget: TokenBudget, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match=r"transformers\.model .*expected an image-text-to-text model"):
        TransformersCaptioner(TransformersSettings(model=str(tmp_path)), budget)
    with pytest.raises(ModelError, match=r"transformers\.device: expected a device of this machine, found 'tpu9'"):
        TransformersCaptioner(TransformersSettings(model=str(llava), device="tpu9"), budget)


def test_a_model_that_does_not_chat_is_named(llava: Path, budget: TokenBudget, tmp_path: Path) -> None:
    for file in llava.iterdir():
        if file.suffix != ".jinja":
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(ModelError, match="expected a chat model, found no chat template"):
        TransformersCaptioner(TransformersSettings(model=str(tmp_path)), budget)


def test_it_is_opened_by_its_settings(llava: Path, item: Items) -> None:
    settings = CaptionSettings(kind="transformers", transformers=TransformersSettings(model=str(llava), batch_size=3))
    with open_captioner(settings) as captioner:
        assert (captioner.name, captioner.batch_size) == (f"transformers:{llava}", 3)
        assert len(captioner.caption([item(0)])) == 1
