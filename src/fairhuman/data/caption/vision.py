"""What both kinds of vision-language models share: the question, the picture, the clean answer."""

from PIL import Image

from fairhuman.data.caption.item import Caption, CaptionItem, clean_text
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.pictures.stored import PictureError
from fairhuman.detect.worker import Failure

_QUOTES = ('""', "''", "“”", "‘’", "**")


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
