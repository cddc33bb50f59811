"""Shared by both kinds of vision-language captioners: the prompt, the picture, the cleaned answer."""

from PIL import Image

from fairhuman.data.caption.item import Caption, CaptionItem, clean_text
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.pictures.stored import PictureError
from fairhuman.detect.worker import Failure

_QUOTES = ('""', "''", "“”", "‘’", "**")


def fill_prompt(prompt: str, budget: TokenBudget, text: str = "") -> str:
    """Fill in the prompt: the token limit without the two markers, the corresponding number of words, the text."""
    tokens = budget.max_tokens - 2
    filled = prompt.replace("{tokens}", str(tokens)).replace("{words}", str(tokens * 2 // 3))
    return filled.replace("{text}", clean_text(text))  # last, so that placeholders in the text aren't replaced


def load_picture(item: CaptionItem, longest_side: int) -> Image.Image | Failure:
    """The item's picture as RGB, scaled down if its longer side exceeds `longest_side` pixels."""
    try:
        picture = item.picture().convert("RGB")
    except (PictureError, OSError) as error:
        return Failure(f"picture can't be read: {error}")
    scale = longest_side / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def caption_from_answer(text: str, unfinished: bool, budget: TokenBudget) -> Caption | Failure:
    """Make a caption from a model's answer, without surrounding quotation marks."""
    text = clean_text(text)
    while len(text) > 1 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return budget.caption(text, empty="the model's answer is empty", unfinished=unfinished)
