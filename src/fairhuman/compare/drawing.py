"""A grid of methods: existing pictures, and pictures that models sample for the same prompts and noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairhuman.compare.jobs import Command, run_jobs, sampling_job, sampling_options
from fairhuman.compare.settings import EXPECTED, MAX_ROWS, DrawSettings, slug
from fairhuman.data.sources.prompts import prompts_at
from fairhuman.errors import DataError, RecipeError
from fairhuman.models.locations import check_base
from fairhuman.models.settings import BaseSettings
from fairhuman.models.spec import ModelSpec
from fairhuman.utils.display import Display
from fairhuman.utils.files import digest, write_text, writing


@dataclass(frozen=True)
class GridInputs:
    """Content of a grid.

    Attributes:
        places: method to a folder of pictures or a model, as read by `ModelSpec.parse`.
        prompts: file with one prompt per line, for models to sample.
        control: `pose=PLACE` or `depth=PLACE` that pictures follow.
        zoom_on: method whose detected faces and hands define the close-ups; `EXPECTED`: the boxes of `data`.
        data: data set with one record per prompt.
        rows: numbers of the rows to show; None: `count` random ones by `seed`, or all.
    """

    places: Mapping[str, str]
    prompts: Path | None = None
    control: Sequence[str] = ()
    zoom_on: str | None = None
    data: Path | None = None
    rows: Sequence[int] | None = None
    count: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.places:
            raise RecipeError("no method: give --method NAME=FOLDER or NAME=MODEL, once for each column")
        if self.zoom_on not in (None, EXPECTED, *self.places):
            known = ", ".join(self.places)
            raise RecipeError(f"--zoom-on must be {EXPECTED} or one of {known}, found {self.zoom_on!r}")
        if (self.zoom_on == EXPECTED) != (self.data is not None):
            raise RecipeError(f"--zoom-on {EXPECTED} and --data go together: close-ups are cut where its boxes are")
        if self.data is not None and not self.data.exists():
            raise DataError(f"{self.data}: there is no such file or folder")

    @property
    def folders(self) -> dict[str, Path]:
        """The places as paths."""
        return {name: Path(place) for name, place in self.places.items()}


def make_grid(inputs: GridInputs, settings: DrawSettings, out: Path, display: Display) -> Path | int:
    """Sample the models' missing pictures and write the grid; returns the page, or the signal that interrupted it.

    Raises:
        DataError: the prompts can't be read, or more than 64 of them are to be shown.
        FairHumanError: `out` can't be written; or as in `parse_models`, `draw_models`, `expected_boxes`, `write_grid`.
    """
    models, methods = parse_models(inputs.places, inputs.prompts, settings.base), inputs.folders
    # Here, so that a mistake in the inputs is told without torch.
    from fairhuman.compare.grid.grid import choose_rows, write_grid
    from fairhuman.compare.pictures import expected_boxes

    with writing(out):
        if inputs.prompts is not None:
            texts = prompts_at(inputs.prompts)
            shown, _ = choose_rows(len(texts), inputs.rows, inputs.count, inputs.seed)
            if len(shown) > MAX_ROWS:
                raise DataError(
                    f"{inputs.prompts}: a grid shows at most {MAX_ROWS} rows, found {len(texts)} prompts; choose some "
                    "with --count or --row"
                )
            drawn = draw_models(models, texts, settings, out / "samples", display)
            if isinstance(drawn, int):
                return drawn
            methods |= drawn
        expected = expected_boxes(methods, inputs.data) if inputs.data is not None else None
        return write_grid(
            methods,
            out,
            rows=inputs.rows,
            count=inputs.count,
            seed=inputs.seed,
            zoom_on=None if expected is not None else inputs.zoom_on,
            expected=expected,
            control=inputs.control,
            tell=display.say,
        )


def parse_models(
    places: Mapping[str, str], prompts: Path | None, base: BaseSettings | None = None
) -> dict[str, ModelSpec]:
    """The methods that are models rather than folders of pictures.

    Raises:
        DataError: a model without prompts.
        RecipeError: prompts without a model, or as in `ModelSpec.parse` and `ModelSpec.added_weights`.
        ModelError: a model, LoRA or MoLE doesn't exist.
    """
    drawing = {name: place for name, place in places.items() if not _holds_pictures(Path(place))}
    if prompts is None and drawing:
        name, place = next(iter(drawing.items()))
        raise DataError(
            f"method {name!r}: expected a folder of pictures, found none at {place}; a model needs --prompts FILE"
        )
    if prompts is not None and not drawing:
        raise RecipeError("--prompts: all methods are folders of pictures, none is a model that could sample")
    models = {name: ModelSpec.parse(place) for name, place in drawing.items()}
    for model in models.values():
        check_base(model.model, base or BaseSettings())
        model.added_weights()
    return models


def draw_models(
    models: Mapping[str, ModelSpec], texts: Sequence[str], settings: DrawSettings, out: Path, display: Display
) -> dict[str, Path] | int:
    """Sample missing pictures of all prompts, shown or not, into subfolders of `out`; returns the folders by name, or
    the signal that interrupted it.

    Raises:
        FairHumanError: a sampling command failed; quotes the end of its log.
    """
    lines = "\n".join(texts) + "\n"
    decisive = settings.decisive()
    if settings.base == BaseSettings():
        del decisive["base"]  # so that pictures drawn before there was this section are found
    folder = out / digest(f"{decisive}{lines}")[:12]
    write_text(folder / "prompts.txt", lines)
    folders = {name: folder / f"{slug(name)}-{digest(str(model))[:8]}" for name, model in models.items()}
    jobs = [_job(name, model, folders[name], len(texts), settings) for name, model in models.items()]
    signal = run_jobs(jobs, display, settings.processes)
    return folders if signal is None else signal


def _holds_pictures(place: Path) -> bool:
    return place.is_dir() and not (place / "model_index.json").is_file()


def _job(name: str, model: ModelSpec, out: Path, count: int, settings: DrawSettings) -> Command:
    size = (settings.resolution, settings.resolution)
    options = sampling_options(
        model.model, settings.steps, settings.guidance, size, settings.seed, settings.base, settings.batch_size
    )
    added = model.added_weights()
    if added is not None:
        file, mole = added
        options += ["--mole", file] if mole else ["--lora", file, "--lora-weight", model.weight]
    return sampling_job(f"pictures of {name}", out, out.parent / "prompts.txt", count, options)
