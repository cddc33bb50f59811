"""What the pages of the studio share: the secret in their addresses, the places that they show, what a request says."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from fairhuman.data.review.pictures import KINDS as KINDS_TO_REVIEW
from fairhuman.data.sources import source_kind
from fairhuman.errors import FairHumanError
from fairhuman.studio.places import Places, find_places
from fairhuman.studio.settings import StudioSettings
from fairhuman.utils.files import cache_folder, writing
from fairhuman.utils.secret_file import derived_token, read_secret
from fairhuman.web.app import MAX_BODY, RefusedError, page, read_json
from fairhuman.web.frame import Frame

SECRET = "studio.key"  # in the user's cache
LOOK_SECONDS = 3.0  # between two looks for new places
LINKS = {"": "Overview", "/run": "Runs", "/data": "Data", "/compare": "Compare", "/start": "New run"}
KINDS = {"runs": "run", "data": "data set", "samples": "folder of samples"}
Kind = Literal["runs", "data", "samples"]
BodyT = TypeVar("BodyT", bound=BaseModel)


class Studio:
    """The frame of all pages.

    Attributes:
        paths: the given folders, resolved; nothing outside them is served.
        settings: of the studio.
        root: path of the first page, which ends in a secret. It stays the same for the same folders and user.

    Raises:
        DataError: a path doesn't exist or holds nothing to show, or the user's secret is damaged.
        FairHumanError: the secret can't be written.
    """

    def __init__(self, paths: Sequence[Path], settings: StudioSettings) -> None:
        self.paths = tuple(path.resolve() for path in paths)
        self.settings = settings
        self._places = find_places(paths, settings.source.format)
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        own = cache_folder() / SECRET
        with writing(own, "; set the environment variable FAIRHUMAN_CACHE to use another folder"):
            own.parent.mkdir(parents=True, exist_ok=True)
            secret = read_secret(own, "making it", "delete the file, which gives the studio a new address")
        self.token = derived_token(secret, "studio " + "\n".join(map(ascii, self.paths)))
        self.root = f"/s/{self.token}"

    def places(self) -> Places:
        """What there is to show, with what came since the last look."""
        with self._lock:
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._places = find_places(self.paths, self.settings.source.format, again=True)
                self._looked = time.monotonic()
            return self._places

    def place(self, kind: Kind, name: str) -> Path:
        """The folder of a name.

        Raises:
            RefusedError: there is none (404).
        """
        path: Path | None = getattr(self.places(), kind).get(name)
        if path is None:
            raise RefusedError(404, f"There is no such {KINDS[kind]} in this studio.")
        return path

    def get(self, act: Callable[[Request], Any]) -> Callable[[Request], Response]:
        """An endpoint that reads; what `act` returns is sent as JSON unless it is a response."""

        def endpoint(request: Request) -> Response:
            self.check(request)
            found = act(request)
            return found if isinstance(found, Response) else JSONResponse(found)

        return endpoint

    def post(
        self, kind: type[BodyT], act: Callable[[BodyT], Any], limit: int = MAX_BODY, *, writes: bool = True
    ) -> Callable[[Request], Any]:
        """An endpoint with a body of `kind`; one that `writes` is refused where the studio is read-only."""

        async def endpoint(request: Request) -> Response:
            self.check(request)
            if writes and self.settings.read_only:
                raise RefusedError(403, "This studio is read-only, so nothing was changed.")
            return JSONResponse(await run_in_threadpool(act, await read_json(request, kind, limit)))

        return endpoint

    def page(self, template: str, current: str, **context: object) -> HTMLResponse:
        """A page; `current` is the path of its entry in the navigation."""
        return page(template, 200, root=self.root, frame=self.frame(current), **context)

    def frame(self, current: str) -> Frame:
        """The head of the pages whose entry in the navigation is `current`."""
        read_only = self.settings.read_only
        links = {path: text for path, text in LINKS.items() if path != "/start" or not read_only}
        return Frame("studio", self.root, links, current, read_only)

    def reviewable(self, path: Path) -> bool:
        """Whether a data set can be reviewed here."""
        try:
            kind = source_kind(path, self.settings.source.format)
        except FairHumanError:
            return False
        return kind in KINDS_TO_REVIEW and path.is_dir() and not self.settings.read_only

    def check(self, request: Request) -> None:
        """Refuse a request whose address has another secret."""
        if not secrets.compare_digest(request.path_params["token"].encode(), self.token.encode()):
            raise RefusedError(404, "This address is of another studio, or incomplete.")


def number(request: Request, name: str, default: int | None, low: int = 0, high: int = 2**53) -> int | None:
    """A whole number of a request's address.

    Raises:
        RefusedError: it is something else, or outside `low`..`high` (422).
    """
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 17 and low <= int(text) <= high):
        raise RefusedError(422, f"{name} must be a whole number in {low}..{high}.")
    return int(text)


def text_of(request: Request, name: str) -> str:
    """A text of a request's address; empty if it has none."""
    return request.query_params.get(name, "")
