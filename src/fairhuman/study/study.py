"""Data model of a study: settings, design and answers.

A study's folder holds `study.yaml` (settings), `design.json` (items and trials), `pictures/` (copies under random
names) and `study.sqlite` (sessions and answers, unless another database is used). Only `design.json` maps pictures to
methods; it is never served.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from fairhuman import config
from fairhuman.config import Settings
from fairhuman.errors import DataError
from fairhuman.utils.files import write_json
from fairhuman.utils.parse import parse_json

SETTINGS, DESIGN, PICTURES, DATABASE = "study.yaml", "design.json", "pictures", "study.sqlite"
CREATION = "creation.json"  # how the study was made, for the report, and the secret of its design; never served
PRIVATE = (DESIGN, CREATION)  # files that only their owner may read
MOST_SHOWN = 9  # each has a key


class Question(Settings):
    """A question about each group of pictures."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$", description="name in results")
    text: str = Field(min_length=1, max_length=400, description="text for participants")
    zoom: bool = Field(default=False, description="show close-ups of faces and hands")


OVERALL = Question(
    name="overall", text="Which picture is better overall? Consider how good, realistic and coherent it looks."
)
REGIONAL = Question(
    name="regional",
    text="Which picture has better faces and hands? Consider how detailed, plausible and natural they look.",
    zoom=True,
)


class ExclusionSettings(Settings):
    """Rules for excluding participants from the second analysis, fixed before the first answer."""

    max_failed_checks: int = Field(default=1, ge=0, description="maximum number of failed attention checks")
    min_seconds: float = Field(default=1.0, ge=0.0, description="minimum median answer time in seconds")
    max_same_side: float = Field(default=0.95, gt=0.5, le=1.0, description="maximum share of answers for one position")
    min_answers: float = Field(default=0.5, ge=0.0, le=1.0, description="minimum share of questions answered")
    max_overclaimed: float | None = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="maximum share of answers whose time is longer than the server's clock allows; None: not checked",
    )


class StudySettings(Settings):
    """Settings of a study, fixed when it is created."""

    title: str = Field(
        default="Which picture do you prefer?", min_length=1, max_length=120, description="title for participants"
    )
    questions: tuple[Question, ...] = Field(default=(OVERALL, REGIONAL), min_length=1)
    items: int = Field(default=100, ge=1, description="groups of pictures with the same prompt")
    participants: int = Field(default=50, ge=1, description="planned participants")
    per_participant: int | None = Field(default=None, ge=1, description="items per participant; None: all")
    shown: int = Field(default=2, ge=2, le=MOST_SHOWN, description="pictures side by side, each from another method")
    ranks: bool = Field(
        default=True,
        description="whether participants rank the pictures where more than two are shown, with ties of any of them; "
        "otherwise they choose the best one, or a tie of all",
    )
    checks: int = Field(default=3, ge=0, description="attention checks per participant")
    seed: int = Field(default=0, ge=0, description="seed of items and design")
    show_prompt: bool = Field(default=True, description="show the prompt above the pictures")
    exclude: ExclusionSettings = ExclusionSettings()
    equalize: bool = Field(
        default=False, description="encode and resize all pictures once more, so that none shows its file's format"
    )
    place_minutes: float = Field(
        default=60.0,
        gt=0,
        description="minutes without an answer after which another visitor of the open link may take the place",
    )

    @property
    def ranked(self) -> bool:
        """Whether answers are ranks; of two pictures, a choice says as much."""
        return self.ranks and self.shown > 2

    @field_validator("questions")
    @classmethod
    def _names_differ(cls, questions: tuple[Question, ...]) -> tuple[Question, ...]:
        names = [question.name for question in questions]
        if len(set(names)) < len(names):
            raise ValueError(f"names of questions must differ, found {', '.join(names)}")
        return questions

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> "StudySettings":
        if self.per_participant is not None and self.per_participant > self.items:
            raise ValueError(
                f"per_participant must be at most items (--pairs) = {self.items}, found {self.per_participant}"
            )
        return self


@dataclass(frozen=True)
class StudyItem:
    """The pictures of all methods for one prompt, or an attention check, whose correct "method" is `better`.

    `pictures` maps methods to file names in `pictures/`, `zooms` to those of close-ups, the same number for each
    method.
    """

    prompt: str
    pictures: Mapping[str, str]
    zooms: Mapping[str, tuple[str, ...]]
    better: str | None = None


@dataclass(frozen=True)
class Trial:
    """One trial: an item and the methods shown from left to right."""

    item: int
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Design:
    """All items (real ones first, then attention checks), and each participant's trials in order."""

    methods: tuple[str, ...]
    items: tuple[StudyItem, ...]
    participants: tuple[tuple[Trial, ...], ...]


@dataclass(frozen=True)
class Answer:
    """A participant's answer to one question about one trial.

    Attributes:
        participant, trial: numbers from 0.
        question: name of the question.
        choice: position in `Trial.shown`; None: a tie, of all pictures or, with ranks, of the best ones.
        seconds: time from showing the pictures to the answer, measured by the browser.
        given: time when the server accepted it, ISO 8601, UTC.
        ranks: rank of each picture in `Trial.shown`, as text of `fairhuman.study.ranks`; None: only a choice.
    """

    participant: int
    trial: int
    question: str
    choice: int | None
    seconds: float
    given: str
    ranks: str | None = None


@dataclass(frozen=True)
class StoredStudy:
    """A study's folder with its settings and design."""

    folder: Path
    settings: StudySettings
    design: Design

    def creation(self) -> tuple[list[str], list[str]]:
        """Notes and excluded prompts, as written by `create_study`; both are empty if the study was made differently.

        Raises:
            DataError: the file wasn't written by `create_study`.
        """
        notes, left_out, changed = self._created()
        later = "Changed in study.yaml after the study was made, so not fixed in advance: {} is {}, was {}."
        return [*notes, *(later.format(name, now, before) for name, (before, now) in changed.items())], left_out

    def changed_rules(self) -> bool:
        """Whether a rule of exclusion was changed after the study was made; raises the error of `creation`."""
        return any(name.startswith("exclude.") for name in self._created()[2])

    def _created(self) -> tuple[list[str], list[str], dict[str, tuple[Any, Any]]]:
        """Notes, excluded prompts, and the settings that were changed since, each with both values."""
        path = self.folder / CREATION
        if not path.is_file():
            return [], [], {}
        try:
            values = parse_json(path.read_text(encoding="utf-8"))
            notes, left_out = ([str(text) for text in values[name]] for name in ("notes", "left_out"))
            registered = StudySettings.model_validate(values["settings"])
            return notes, left_out, config.differences(_registered_alone(registered), self.settings)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: wasn't written by fairhuman study create: {error!r}") from error


def check_study(folder: Path) -> None:
    """Check that a folder is that of a study.

    Raises:
        DataError: it isn't; names a study beside it whose name is near.
    """
    if (folder / SETTINGS).is_file() or (folder / DESIGN).is_file():
        return
    beside = folder.absolute().parent
    studies = [path.parent.name for path in beside.glob(f"*/{DESIGN}")] if beside.is_dir() else []
    near = difflib.get_close_matches(folder.name, studies, 1, 0.6)
    why = f"holds no study, which has {SETTINGS} and {DESIGN}" if folder.is_dir() else "there is no such folder"
    hint = f"did you mean {folder.with_name(near[0])}?" if near else f"`fairhuman study create {folder}` makes one"
    raise DataError(f"{folder}: {why}; {hint}")


def load_study(folder: Path) -> StoredStudy:
    """Read settings and design; raises the errors of `check_study`, `config.load` and `load_design`."""
    check_study(folder)
    return StoredStudy(folder, load_settings(folder), load_design(folder))


def load_settings(folder: Path) -> StudySettings:
    """Read `study.yaml`. An older one goes on as it began: a rule of exclusion that it doesn't register excludes
    nobody, and without `ranks` only the best picture is chosen.

    Raises:
        RecipeError: as `config.load`.
    """
    return _registered_alone(config.load(StudySettings, folder / SETTINGS))


def _registered_alone(settings: StudySettings) -> StudySettings:
    known, changed = settings.model_fields_set, dict[str, Any]()
    if "exclude" in known and "max_overclaimed" not in settings.exclude.model_fields_set:
        changed["exclude"] = settings.exclude.model_copy(update={"max_overclaimed": None})
    if "ranks" not in known:
        changed["ranks"] = False
    return settings.model_copy(update=changed)


def save_design(design: Design, folder: Path) -> None:
    """Write `design.json`, readable by its owner alone."""
    write_json(folder / DESIGN, asdict(design), private=True)


def load_design(folder: Path) -> Design:
    """Read `design.json`.

    Raises:
        DataError: the file is missing or invalid.
    """
    path = folder / DESIGN
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        return Design(
            methods=_names(values["methods"]),
            items=tuple(_item(item) for item in values["items"]),
            participants=tuple(
                tuple(Trial(int(trial["item"]), _names(trial["shown"])) for trial in trials)
                for trials in values["participants"]
            ),
        )
    except OSError as error:
        raise DataError(f"{path}: can't be read; is {folder} a study? {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: isn't the design of a study: {error!r}") from error


def load_digests(folder: Path) -> Mapping[str, str] | None:
    """Digests of the pictures by file name, which `create_study` writes into `creation.json`; None: there are none.

    Raises:
        DataError: the file can't be read, or holds something else.
    """
    path = folder / CREATION
    if not path.is_file():
        return None
    try:
        found = parse_json(path.read_text(encoding="utf-8")).get("digests")
        return None if found is None else {str(name): str(digest) for name, digest in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: wasn't written by fairhuman study create: {error!r}") from error


def _item(values: Mapping[str, Any]) -> StudyItem:
    zooms = {method: _names(names) for method, names in values["zooms"].items()}
    pictures = dict(zip(values["pictures"], _names(values["pictures"].values()), strict=True))
    return StudyItem(values["prompt"], pictures, zooms, values["better"])


def _names(values: Iterable[Any]) -> tuple[str, ...]:
    names = tuple(values)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"expected names, found {names}")
    return names
