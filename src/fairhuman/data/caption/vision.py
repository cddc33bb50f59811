"""What both kinds of vision-language models share: the question, the picture, the clean answer."""

from PIL import Image
from pydantic import Field

from fairhuman.config import Settings
from fairhuman.data.caption.item import Caption, CaptionItem, clean_text
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.pictures.stored import PictureError
from fairhuman.detect.worker import Failure

PROMPT = (
    "Describe this picture concisely and accurately: the people, their poses, hands, expressions and clothes, and the "
    "place. Say only what can be seen, without praise or guesses. Answer with the description alone: plain "
    "sentences of at most {words} words together ({tokens} CLIP tokens)."
)
_QUOTES = ('""', "''", "“”", "‘’", "**")


class VisionSettings(Settings):
    """The question to a vision-language model."""

    model: str = Field(default="", description="no default")
    prompt: str = Field(
        default=PROMPT,
        min_length=1,
        description="{tokens} and {words} become what the caption may have, {text} the caption of the source",
    )
    longest_side: int = Field(default=1024, ge=32, description="pixels; larger pictures are scaled down for the model")
    max_new_tokens: int = Field(default=160, ge=1, description="of the model's own tokenizer; the answer ends there")


class TransformersSettings(VisionSettings):
    """Of `kind: transformers`: `model` is a folder or a hub id, such as `Qwen/Qwen2.5-VL-7B-Instruct`."""

    EXECUTION = frozenset(("device", "batch_size"))

    device: str | None = Field(default=None, description="None: a GPU where there is one")
    batch_size: int = Field(default=8, ge=1, description="pictures at once; halved where memory doesn't do")


def question(prompt: str, budget: TokenBudget, text: str = "") -> str:
    """The prompt with the budget put in: SDXL's limit without the two markers, and about as many words as that is."""
    tokens = budget.max_tokens - 2
    asked = prompt.replace("{tokens}", str(tokens)).replace("{words}", str(tokens * 2 // 3))
    return asked.replace("{text}", clean_text(text))  # last: what a source says is no part of the prompt


def load_picture(item: CaptionItem, longest_side: int) -> Image.Image | Failure:
    """The item's picture as RGB, scaled down where it is larger than `longest_side` pixels."""
    try:
        picture = item.picture().convert("RGB")
    except (PictureError, OSError) as error:
        return Failure(f"picture can't be read: {error}")
    scale = longest_side / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def answered(text: str, unfinished: bool, budget: TokenBudget) -> Caption | Failure:
    """The caption that a model's answer makes, without the quotation marks that some put around it."""
    text = clean_text(text)
    while len(text) > 1 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return budget.caption(text, empty="the model's answer is empty", unfinished=unfinished)
