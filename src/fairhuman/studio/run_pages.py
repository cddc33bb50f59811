"""The studio's pages of training runs."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from fairhuman.report.colours import REGION_COLOURS, colours
from fairhuman.studio.api import RunBody
from fairhuman.studio.base import Studio, number, text_of
from fairhuman.studio.runs import Runs
from fairhuman.studio.starts import Starts

MOST_RUNS = 6  # side by side
PICTURES = {"Cache-Control": "private, max-age=3600"}


class RunPages:
    """Runs side by side, live: curves, held-out losses, previews, log."""

    def __init__(self, studio: Studio, starts: Starts) -> None:
        self._studio, self._runs, self._starts = studio, Runs(), starts

    def routes(self) -> Sequence[Route]:
        """Pages and their API."""
        get = self._studio.get
        return [
            Route("/s/{token}/run", get(self._page)),
            Route("/s/{token}/run/picture", get(self._picture)),
            Route("/s/{token}/api/runs", get(self._list)),
            Route("/s/{token}/api/metrics", get(self._metrics)),
            Route("/s/{token}/api/run", get(self._details)),
            Route("/s/{token}/api/stop", self._studio.post(RunBody, self._stop), methods=["POST"]),
        ]

    def _page(self, request: Request) -> Response:
        asked = list(dict.fromkeys(request.query_params.getlist("name")))
        names = asked[:MOST_RUNS]
        for name in names:
            self._studio.place("runs", name)
        return self._studio.page("studio_run.html", "/run", names=names, asked=len(asked), most=MOST_RUNS)

    def _list(self, _: Request) -> dict[str, Any]:
        folders = self._studio.places().runs
        listed = [
            {**state, "listed": True, **self._starts.added(folders[state["name"]], state["state"], state["changed"])}
            for state in self._runs.states(folders)
        ]
        return {"runs": [*self._starts.unlisted(folders.values()), *listed]}

    def _metrics(self, request: Request) -> dict[str, Any]:
        view = self._runs.of(self._studio.place("runs", text_of(request, "run")))
        points = number(request, "points", 400, 10, 2000) or 400
        first, last, known = (number(request, name, None) for name in ("first", "last", "known"))
        found = view.metrics(points, first, last, known)
        found["state"] |= self._starts.added(view.folder, found["state"]["state"], found["state"]["changed"])
        if "curves" in found:
            kinds = {name.partition("/")[::2] for name in found["curves"]["columns"] if "/" in name}
            pairs = {label for kind, label in kinds if kind == "cos"}
            objectives = {label for _, label in kinds} - pairs
            found["colours"] = {**colours(sorted(pairs)), **colours([*REGION_COLOURS, *sorted(objectives)])}
        return found

    def _details(self, request: Request) -> dict[str, Any]:
        view = self._runs.of(self._studio.place("runs", text_of(request, "run")))
        return {
            "held_out": view.held_out(),
            "previews": view.previews(),
            "overlay": (view.folder / "overlay.png").is_file(),
            "notes": view.notes(),
            "recipe": view.recipe_text(),
            "log": view.log(),
        }

    def _picture(self, request: Request) -> Response:
        view = self._runs.of(self._studio.place("runs", text_of(request, "run")))
        return FileResponse(view.picture(text_of(request, "file")), media_type="image/png", headers=PICTURES)

    def _stop(self, body: RunBody) -> dict[str, Any]:
        view = self._runs.of(self._studio.place("runs", body.run))
        view.stop()
        return {"state": view.state()}
