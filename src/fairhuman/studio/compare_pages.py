"""The studio's page of pictures side by side."""

import mimetypes
import shlex
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from fairhuman.errors import DataError, FairHumanError
from fairhuman.studio.api import ChoiceBody, NamesBody
from fairhuman.studio.base import Studio, text_of
from fairhuman.studio.compare import Choices, Comparison, compare_runs, compare_samples, row_id
from fairhuman.studio.runs import RunView
from fairhuman.study.ranks import JOIN
from fairhuman.web.app import RefusedError

MOST = 6
KEPT = 8  # comparisons in memory
SHORT = {"Cache-Control": "private, max-age=60"}


class ComparePages:
    """Folders of samples, or runs, with the same prompts and seeds."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._choices = Choices(list(dict.fromkeys(path if path.is_dir() else path.parent for path in studio.paths)))
        self._known: dict[tuple[Any, ...], Comparison] = {}
        self._lock = threading.Lock()

    def routes(self) -> Sequence[Route]:
        """Pages and their API."""
        get, post = self._studio.get, self._studio.post
        return [
            Route("/s/{token}/compare", get(self._page)),
            Route("/s/{token}/compare/picture", get(self._picture)),
            Route("/s/{token}/api/compare", get(self._rows)),
            Route("/s/{token}/api/choice", post(ChoiceBody, self._choose), methods=["POST"]),
            Route("/s/{token}/api/study", post(NamesBody, self._hand_over), methods=["POST"]),
        ]

    def _page(self, request: Request) -> Response:
        places = self._studio.places()
        asked = list(dict.fromkeys(request.query_params.getlist("name")))
        names = asked[:MOST]
        if names:
            self._folders(names)
        return self._studio.page(
            "studio_compare.html",
            "/compare",
            names=names,
            asked=len(asked),
            samples=list(places.samples),
            runs=list(places.runs),
        )

    def _folders(self, names: Sequence[str]) -> tuple[str, Mapping[str, Path]]:
        """Whether names are of samples or of runs, and their folders.

        Raises:
            RefusedError: a name is unknown (404), there is none, or they are of both kinds (422).
        """
        places = self._studio.places()
        if not 1 <= len(names) <= MOST or len(set(names)) < len(names):
            raise RefusedError(422, f"Compare 1 to {MOST} different folders or runs.")
        if all(name in places.samples for name in names):
            return "samples", {name: places.samples[name] for name in names}
        if all(name in places.runs for name in names):
            return "runs", {name: places.runs[name] for name in names}
        if all(name in places.samples or name in places.runs for name in names):
            raise RefusedError(422, "Compare folders of samples, or runs by their previews, but not both.")
        raise RefusedError(404, "There is no such folder of samples or run in this studio.")

    def _comparison(self, names: Sequence[str]) -> Comparison:
        kind, folders = self._folders(names)
        try:
            if kind == "runs":
                return compare_runs({name: RunView(folder) for name, folder in folders.items()})
            key = (tuple(names), tuple(folder.stat().st_mtime for folder in folders.values()))
            with self._lock:
                if key not in self._known:
                    self._known[key] = compare_samples(folders)
                    for old in list(self._known)[:-KEPT]:
                        del self._known[old]
                return self._known[key]
        except (FairHumanError, OSError) as error:
            raise RefusedError(422, f"They can't be compared: {error}.") from error

    def _rows(self, request: Request) -> dict[str, Any]:
        names = list(dict.fromkeys(request.query_params.getlist("name")))
        found = self._comparison(names)
        try:
            choices = self._choices.read(self._folders(names)[1])
        except DataError as error:
            raise RefusedError(422, f"{error}.") from error
        nothing = {"star": False, "note": ""}
        return {
            "rows": [
                {"label": row.label, "prompt": row.prompt, "id": row_id(row), **choices.get(row_id(row), nothing)}
                for row in found.rows
            ],
            "notes": list(found.notes),
        }

    def _picture(self, request: Request) -> Response:
        names = list(dict.fromkeys(request.query_params.getlist("name")))
        wanted, of = text_of(request, "row"), text_of(request, "of")
        row = next((row for row in self._comparison(names).rows if row_id(row) == wanted), None)
        if row is None or of not in row.pictures:
            raise RefusedError(404, "There is no such picture in this comparison.")
        path = row.pictures[of]
        folder = self._folders(names)[1][of]
        if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise RefusedError(404, "This picture is not there any more.")
        kind = mimetypes.guess_type(path.name)[0] or ""
        return FileResponse(path, media_type=kind if kind.startswith("image/") else "image/png", headers=SHORT)

    def _choose(self, body: ChoiceBody) -> dict[str, Any]:
        if body.row not in {row_id(row) for row in self._comparison(body.names).rows}:
            raise RefusedError(404, "There is no such row in this comparison.")
        try:
            self._choices.set(self._folders(body.names)[1], body.row, body.star, " ".join(body.note.split()))
        except FairHumanError as error:
            raise RefusedError(403, f"Nothing was saved: {error}.") from error
        return {"saved": True}

    def _hand_over(self, body: NamesBody) -> dict[str, Any]:
        kind, folders = self._folders(body.names)
        if kind == "runs" or len(folders) < 2:
            raise RefusedError(422, "A study needs two or more folders of samples: draw them with `fairhuman sample`.")
        try:
            path, stars = self._choices.leave_out(self._comparison(body.names), folders)
        except FairHumanError as error:
            raise RefusedError(422, f"No list for a study: {error}.") from error
        labelled = zip(_labels(folders), folders.values(), strict=True)
        methods = [word for label, folder in labelled for word in ("--method", f"{label}={folder}")]
        words = ["fairhuman", "study", "create", "study", *methods, "--leave-out", str(path), "--pairs", str(stars)]
        return {"command": shlex.join(words), "stars": stars}


def _labels(names: Iterable[str]) -> list[str]:
    """Names of methods: the last part of each, or all of it where two are the same; a study's have no = and no |."""
    plain = [name.replace("=", "-").replace(JOIN, "-") for name in names]
    last = [Path(name).name for name in plain]
    return last if len(set(last)) == len(last) else plain
