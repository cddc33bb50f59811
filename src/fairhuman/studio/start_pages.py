"""The studio's page that starts a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairhuman.errors import FairHumanError
from fairhuman.studio.api import RecipeBody, RunBody
from fairhuman.studio.base import Studio
from fairhuman.studio.runs import is_running
from fairhuman.studio.start import command, dry_run, form, out_of, recipes, start
from fairhuman.web.app import RefusedError


class StartPages:
    """A form of all settings, the dry run's findings beside it, and the start."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def routes(self) -> Sequence[Route]:
        """Pages and their API."""
        get, post = self._studio.get, self._studio.post
        return [
            Route("/s/{token}/start", get(self._page)),
            Route("/s/{token}/api/form", get(self._form)),
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
        return {**form(), "recipes": recipes(), "data": data, "out": _typed(folder / "new-run")}

    def _plan(self, body: RecipeBody) -> dict[str, Any]:
        try:
            return dry_run(command(body.recipe, body.settings))
        except FairHumanError as error:
            raise RefusedError(422, f"{error}.") from error

    def _start(self, body: RecipeBody) -> dict[str, Any]:
        try:
            words = command(body.recipe, body.settings)
            out = out_of(body.recipe, body.settings)
            if is_running(out):
                raise RefusedError(409, f"A run is already writing into {out}.")
            start(words, out, self._studio.paths)
        except FairHumanError as error:
            if isinstance(error, RefusedError):
                raise
            raise RefusedError(422, f"{error}.") from error
        return {"started": True}

    def _resume(self, body: RunBody) -> dict[str, Any]:
        folder = self._studio.place("runs", body.run)
        recipe = folder / "recipe.yaml"
        if is_running(folder):
            raise RefusedError(409, "This run is running.")
        if not recipe.is_file():
            raise RefusedError(409, "This run's recipe.yaml is missing, so it can't be resumed.")
        try:
            start(["fairhuman", "train", str(recipe), f"out={folder}"], folder, (folder.parent,))
        except FairHumanError as error:
            raise RefusedError(403, f"{error}.") from error
        return {"started": True}


def _typed(path: Path) -> str:
    """A path as one types it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
