"""The studio's page that starts a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairhuman.data.look.reading import open_dataset
from fairhuman.errors import FairHumanError, RecipeError
from fairhuman.studio.api import RecipeBody, RunBody
from fairhuman.studio.base import Studio, text_of
from fairhuman.studio.places import is_run
from fairhuman.studio.start import as_text, command, dry_run, form, free_place, out_of, recipe_values, recipes
from fairhuman.studio.starts import Starts
from fairhuman.web.app import RefusedError


class StartPages:
    """A form of all settings, the dry run's findings beside it, and the start."""

    def __init__(self, studio: Studio, starts: Starts) -> None:
        self._studio, self._starts = studio, starts

    def routes(self) -> Sequence[Route]:
        """Pages and their API."""
        get, post = self._studio.get, self._studio.post
        return [
            Route("/s/{token}/start", get(self._page)),
            Route("/s/{token}/api/form", get(self._form)),
            Route("/s/{token}/api/regions", get(self._regions)),
            Route("/s/{token}/api/plan", post(RecipeBody, self._plan), methods=["POST"]),
            Route("/s/{token}/api/start", post(RecipeBody, self._start), methods=["POST"]),
            Route("/s/{token}/api/resume", post(RunBody, self._resume), methods=["POST"]),
        ]

    def _page(self, _: Request) -> Response:
        if self._studio.settings.read_only:
            raise RefusedError(403, "This studio is read-only: it starts no runs.")
        return self._studio.page("studio_start.html", "/start")

    def _form(self, _: Request) -> dict[str, Any]:
        places = self._studio.places()
        folder = next((path for path in self._studio.paths if path.is_dir()), self._studio.paths[0].parent)
        data = [_typed(path) for path in places.data.values()]
        known = {name: recipe_values(name) for name in recipes()}
        return {**form(), "recipes": known, "data": data, "out": _typed(free_place(folder / "new-run"))}

    def _regions(self, request: Request) -> dict[str, Any]:
        """Regions of a data set of this studio, which is named by its path as one types it; none of another."""
        path = Path(text_of(request, "data")).absolute()
        if path.resolve() not in self._studio.places().data.values():
            return {"regions": []}
        try:
            return {"regions": list(open_dataset(path, self._studio.settings.source).regions)}
        except FairHumanError as error:
            raise RefusedError(422, f"{error}.") from error

    def _plan(self, body: RecipeBody) -> dict[str, Any]:
        try:
            words = command(body.recipe, body.settings)
            out = out_of(words)
            problem = self._starts.problem(out)
        except FairHumanError as error:
            raise RefusedError(422, f"{error}.") from error
        found = dry_run(words)
        if problem is not None:
            found["ready"] = False
        elif is_run(out):
            problem = f"{out} holds a run, " + (
                "which goes on" if found["ready"] else f"so choose another out for a new one, such as {free_place(out)}"
            )
        if problem is not None:
            found["findings"].insert(0, f"{'note' if found['ready'] else 'missing'} out: {problem}")
        return found

    def _start(self, body: RecipeBody) -> dict[str, Any]:
        try:
            words = command(body.recipe, body.settings)
            self._starts.start(words, out_of(words))
        except FairHumanError as error:
            raise RefusedError(422, f"{error}.") from error
        return {"started": True}

    def _resume(self, body: RunBody) -> dict[str, Any]:
        folder = self._studio.place("runs", body.run)
        recipe = folder / "recipe.yaml"
        if not recipe.is_file():
            raise RefusedError(409, "This run's recipe.yaml is missing, so it can't be resumed.")
        try:
            self._starts.start(["fairhuman", "train", str(recipe), f"out={as_text(str(folder))}"], folder)
        except RecipeError as error:
            raise RefusedError(409, f"{error}.") from error
        except FairHumanError as error:
            raise RefusedError(403, f"{error}.") from error
        return {"started": True}


def _typed(path: Path) -> str:
    """A path as one types it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
