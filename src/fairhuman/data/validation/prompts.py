"""Brief prompts for records: by rules, or from a model through `fairhuman.data.caption`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from fairhuman.data.caption import open_captioner
from fairhuman.data.caption.item import Caption, Captioner, CaptionItem
from fairhuman.data.caption.settings import CaptionSettings
from fairhuman.data.caption.template import describe_attributes
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.pictures.decode import PictureLimits, decode
from fairhuman.data.validation.candidates import Progress
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.data.validation.shorten import names_person, short_prompt
from fairhuman.detect.worker import Failure
from fairhuman.record import HumanRecord
from fairhuman.utils.journal import Journal

NO_CAPTION, NO_PERSON = "no caption to make a prompt of", "prompt names no person"
TOO_LONG = "no clause about a person fits into prompts.max_words"

MakePrompts = Callable[[Sequence[tuple[HumanRecord, str]]], Iterable[Caption | Failure]]


@contextmanager
def open_prompts(settings: ValidationSetSettings, journal: Journal, progress: Progress) -> Iterator[MakePrompts]:
    """Open a function from records, with the SHA-256 of their pictures, to their prompts in order."""
    prompts, limits = settings.prompts, settings.source.limits
    if prompts.kind == "rules":
        budget = TokenBudget.load(prompts.tokens)
        yield lambda records: (rule_prompt(record, budget, prompts.max_words) for record, _ in records)
        return
    caption = CaptionSettings(
        kind=prompts.kind, transformers=prompts.transformers, endpoint=prompts.endpoint, tokens=prompts.tokens
    )
    with open_captioner(caption) as captioner:
        yield lambda records: model_prompts(records, captioner, journal, limits, progress)


def rule_prompt(record: HumanRecord, budget: TokenBudget, max_words: int) -> Caption | Failure:
    """The record's caption shortened by `short_prompt`, within the limit of both tokenizers.

    Without a caption, a sentence about the record's attributes is used.
    """
    try:
        text = record.caption or describe_attributes(record.attributes)
    except ValueError as error:
        return Failure(f"attributes can't be read: {error}")
    if not text:
        return Failure(NO_CAPTION)
    return budget.caption(short_prompt(text, max_words), empty=TOO_LONG if names_person(text) else NO_PERSON)


def model_prompts(
    records: Sequence[tuple[HumanRecord, str]],
    captioner: Captioner,
    journal: Journal,
    limits: PictureLimits,
    progress: Progress,
) -> Iterator[Caption | Failure]:
    """Prompts from a model, in order; each batch is written to the journal before the next request.

    The captioner gets the picture and the source's caption. Prompts of earlier calls in the journal are reused;
    failures aren't stored, so they are retried.

    Raises:
        DataError, ModelError: as for the captioner, if no record can get a prompt.
    """
    known = {(row["key"], row["picture"]): Caption(row["text"], tuple(row["tokens"]), row["cut"]) for row in journal}
    for start in range(0, len(records), captioner.batch_size):
        block = records[start : start + captioner.batch_size]
        missing = [(record, digest) for record, digest in block if (record.key, digest) not in known]
        answers = captioner.caption([_item(record, limits) for record, _ in missing]) if missing else []
        found: dict[str, Caption | Failure] = {}
        rows = []
        for (record, digest), answer in zip(missing, answers, strict=True):
            found[record.key] = answer
            if isinstance(answer, Caption):
                known[record.key, digest] = answer
                row = {"key": record.key, "picture": digest, "text": answer.text, "tokens": answer.tokens}
                rows.append({**row, "cut": answer.cut})
        journal.add(rows)
        progress("writing prompts", start + len(block), len(records))
        for record, digest in block:
            prompt = known.get((record.key, digest)) or found[record.key]
            accepted = isinstance(prompt, Failure) or names_person(prompt.text)
            yield prompt if accepted else Failure(NO_PERSON)


def _item(record: HumanRecord, limits: PictureLimits) -> CaptionItem:
    return CaptionItem(
        record.key, record.caption, record.attributes, picture=lambda: decode(record.image, limits).picture
    )
