"""The studio's pages of data sets: the list of pictures, and one of them large."""

import threading
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairhuman.data.pictures.encode import encode_png
from fairhuman.errors import FairHumanError
from fairhuman.report.colours import colours
from fairhuman.studio.api import ChangeBody, NameBody, UndoBody
from fairhuman.studio.base import Studio, number, text_of
from fairhuman.studio.pictures import STATES, DataView, DataViews, Entry, Wanted
from fairhuman.web.app import RefusedError

MOST_LISTED = 300  # pictures in one answer
CHANGE_BYTES = 8 * 2**20  # of a change: a mask with many runs
SHORT = {"Cache-Control": "private, max-age=600"}
KEPT_VIEWS = 16


class DataPages:
    """Data sets: look, filter, paint."""

    def __init__(self, studio: Studio) -> None:
        self._studio, self._views = studio, DataViews(studio.settings)
        self._seen: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let others change the data sets."""
        self._views.close()

    def routes(self) -> Sequence[Route]:
        """Pages and their API."""
        get, post = self._studio.get, self._studio.post
        return [
            Route("/s/{token}/data", get(self._page)),
            Route("/s/{token}/data/thumb", get(self._thumb)),
            Route("/s/{token}/data/picture", get(self._pixels)),
            Route("/s/{token}/data/seen", get(self._seen_picture)),
            Route("/s/{token}/api/data", get(self._facts)),
            Route("/s/{token}/api/pictures", get(self._list)),
            Route("/s/{token}/api/picture", get(self._picture)),
            Route("/s/{token}/api/region", get(self._region)),
            Route("/s/{token}/api/seen", get(self._seen_lines)),
            Route("/s/{token}/api/change", post(ChangeBody, self._change, CHANGE_BYTES), methods=["POST"]),
            Route("/s/{token}/api/undo", post(UndoBody, self._undo), methods=["POST"]),
            Route("/s/{token}/api/reload", post(NameBody, self._reload, writes=False), methods=["POST"]),
        ]

    def _view(self, request: Request) -> DataView:
        return self._views.of(self._studio.place("data", text_of(request, "name")))

    def _page(self, request: Request) -> Response:
        name = text_of(request, "name")
        if name:
            self._studio.place("data", name)
        places = self._studio.places()
        name = name or next(iter(places.data), "")
        return self._studio.page(
            "studio_data.html",
            "/data",
            name=name,
            names=list(places.data),
            runs=list(places.runs),
            reviewed=name in places.data and self._studio.reviewable(places.data[name]),
        )

    def _facts(self, request: Request) -> dict[str, Any]:
        view = self._view(request)
        found = view.facts()
        return {**found, "colours": colours(found["regions"])}

    def _list(self, request: Request) -> dict[str, Any]:
        view = self._view(request)
        start = number(request, "start", 0) or 0
        most = number(request, "most", 100, 1, MOST_LISTED) or 100
        found = view.listed(_wanted(request))
        return {
            "total": len(found),
            "done": view.done,
            "pictures": [
                {**_card(place, entry), "changed": view.is_changed(entry), "version": view.version(entry)}
                for place, entry in found[start : start + most]
            ],
        }

    def _place(self, request: Request) -> tuple[DataView, int, str]:
        """Data set, number and group of the picture that a request names, with the key that its page knows."""
        view, place, group = self._view(request), number(request, "number", 0) or 0, text_of(request, "group") or "kept"
        view.entry(place, group, text_of(request, "key"))
        return view, place, group

    def _picture(self, request: Request) -> dict[str, Any]:
        view, place, group = self._place(request)
        return view.picture(place, group)

    def _region(self, request: Request) -> dict[str, Any]:
        """Whether a new region may have a name, and the colours of all regions with it."""
        view, name = self._view(request), text_of(request, "region").strip()
        view.check_region(name)
        return {"region": name, "colours": colours([*view.shown_regions(), name])}

    def _thumb(self, request: Request) -> Response:
        view, place, group = self._place(request)
        content = view.thumbnail(place, group, regions=text_of(request, "regions") == "1")
        return Response(content, media_type="image/jpeg", headers=SHORT)

    def _pixels(self, request: Request) -> Response:
        view, place, group = self._place(request)
        content, kind = view.pixels(place, group)
        return Response(content, media_type=kind, headers=SHORT)

    def _seen_lines(self, request: Request) -> dict[str, Any]:
        found = self._sample(request)
        return {"lines": found.lines, "size": found.size}

    def _seen_picture(self, request: Request) -> Response:
        return Response(encode_png(self._sample(request).picture), media_type="image/png")

    def _sample(self, request: Request) -> Any:
        """The sample that both addresses of it ask for, drawn once."""
        view, place, group = self._place(request)
        like, draw = text_of(request, "like"), number(request, "draw", 0, 0, 10**6) or 0
        entry = view.entry(place, group)
        if entry.record is None:
            raise RefusedError(404, "This picture can't be used.")
        run = self._studio.place("runs", like) if like else None
        regions = tuple(request.query_params.getlist("region"))[:32]
        key = (view.path, place, group, id(entry.record), run, draw, regions)
        try:
            from fairhuman.studio.seen import recipe_like, seen

            with self._lock:
                if key not in self._seen:
                    self._seen[key] = (entry.record, seen(entry.record, regions, recipe_like(run), draw))
                    for old in list(self._seen)[:-KEPT_VIEWS]:
                        del self._seen[old]
                return self._seen[key][1]
        except FairHumanError as error:
            raise RefusedError(404, f"It can't be shown as training sees it: {error}.") from error

    def _change(self, body: ChangeBody) -> dict[str, Any]:
        view = self._views.of(self._studio.place("data", body.name))
        values = body.model_dump(include={"caption", "region", "boxes", "runs"})
        return view.change(body.number, body.key, body.version, values)

    def _undo(self, body: UndoBody) -> dict[str, Any]:
        view = self._views.of(self._studio.place("data", body.name))
        return view.undo(body.number, body.key, body.version, body.again)

    def _reload(self, body: NameBody) -> dict[str, Any]:
        view = self._views.of(self._studio.place("data", body.name))
        view.reload()
        return view.facts()


def _wanted(request: Request) -> Wanted:
    state = text_of(request, "state")
    if state not in ("", *STATES):
        raise RefusedError(422, f"state must be one of {', '.join(STATES)}.")
    below = number(request, "below", 50, 0, 100) or 0
    return Wanted(
        text_of(request, "text"),
        text_of(request, "source"),
        text_of(request, "region"),
        state,
        below / 100,
        text_of(request, "edited") == "1",
        text_of(request, "group") or "kept",
    )


def _card(place: int, entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {
        "number": place,
        "key": entry.key,
        "caption": "" if record is None else record.caption,
        "problem": entry.problem,
        "rejected": entry.rejected,
        "shown": record is not None,
    }
