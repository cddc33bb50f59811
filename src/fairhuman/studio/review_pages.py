"""Reviews of data sets as a view of the studio."""

import secrets
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.review.app import PREFIX, opened_alone
from fairhuman.data.review.current import CurrentReview, refusing
from fairhuman.data.review.events import open_review
from fairhuman.data.review.export import apply_review
from fairhuman.data.review.pages import Opened, Review, ReviewPages
from fairhuman.data.review.settings import ReviewSettings
from fairhuman.data.review.store import ReviewStore
from fairhuman.data.sources.review import DECISIONS, review_state
from fairhuman.data.validation.workplace import MANIFEST
from fairhuman.errors import FairHumanError
from fairhuman.studio.base import Studio, text_of
from fairhuman.web.app import RefusedError

INSIDE = "/s/{token}" + PREFIX


class StudioReviews:
    """Reviews, each at two addresses: below the studio's own, with its navigation, and at that of `data review`, which
    opens nothing else.
    """

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        rules = studio.settings.review.model_dump()
        self._settings = ReviewSettings(**rules, source=studio.settings.source)
        self._tokens: dict[Path, str] = {}
        self._open: dict[Path, CurrentReview] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the databases."""
        for review in self._open.values():
            review.close()

    def routes(self) -> Sequence[Route]:
        """Pages and their API."""
        return [
            Route("/s/{token}/reviews", self._studio.get(self._opened)),
            Route(f"{INSIDE}/apply", self._apply, methods=["POST"]),
            *ReviewPages(INSIDE, self._inside).routes(),
            *ReviewPages(PREFIX, self._alone).routes(),
        ]

    def listed(self) -> Mapping[str, str]:
        """Data sets whose review was begun, and validation sets, with the state of the review."""
        if self._studio.settings.read_only:
            return {}
        found = {}
        for name, path in self._studio.places().data.items():
            begun = (path / DECISIONS).is_file()
            if begun or ((path / MANIFEST).is_file() and self._studio.reviewable(path)):
                found[name] = "begun" if begun else "not begun"
        return found

    def _opened(self, request: Request) -> Response:
        """To the pages of a data set's review, which begins with that."""
        self._check_writable()
        path = self._studio.place("data", text_of(request, "name"))
        if not self._studio.reviewable(path):
            raise RefusedError(404, "Only folders of pictures, with or without metadata, can be reviewed.")
        return RedirectResponse(self._root(self._review(path)), 303)

    def _apply(self, request: Request) -> Response:
        self._studio.check(request)
        path, review = self._found(request)
        try:
            apply_review(path, self._settings)
        except FairHumanError as error:
            raise RefusedError(409, f"Nothing was written: {error}.") from error
        return RedirectResponse(f"{self._root(review)}/progress", 303)

    def _inside(self, request: Request) -> Opened:
        self._studio.check(request)
        path, review = self._found(request)
        alone = opened_alone(review)
        return Opened(review, self._root(review), self._studio.frame("/data"), alone.root, partial(review_state, path))

    def _alone(self, request: Request) -> Opened:
        return opened_alone(self._found(request)[1])

    def _root(self, review: Review) -> str:
        return INSIDE.format(token=self._studio.token, review=review.token)

    def _found(self, request: Request) -> tuple[Path, Review]:
        """The review whose secret is in a request's address; one that was begun earlier is opened.

        Raises:
            RefusedError: there is none (404), or the studio is read-only (403).
        """
        self._check_writable()
        wanted = request.path_params["review"].encode()
        for path, review in list(self._open.items()):
            if secrets.compare_digest(review.token.encode(), wanted):
                return path, review.get()
        for path in self._studio.places().data.values():
            if secrets.compare_digest(self._token(path).encode(), wanted):
                return path, self._review(path)
        raise RefusedError(404, "This address is of another review, or incomplete.")

    def _check_writable(self) -> None:
        if self._studio.settings.read_only:
            raise RefusedError(403, "This studio is read-only, so nothing can be reviewed in it.")

    def _token(self, path: Path) -> str:
        """The secret of a review that was begun; empty if none was, or its database can't be used."""
        if path not in self._tokens and (path / DECISIONS).is_file():
            with suppress(FairHumanError):
                engine = open_review(path)
                try:
                    self._tokens[path] = ReviewStore(engine, {}, self._settings).token()
                finally:
                    engine.dispose()
        return self._tokens.get(path, "")

    def _review(self, path: Path) -> Review:
        """The review of a data set.

        Raises:
            RefusedError: it can't be opened (409).
        """
        with self._lock:
            if path not in self._open:
                with refusing():
                    self._open[path] = CurrentReview(path, self._settings, LoadReport())
        return self._open[path].get()
