"""The pages of a review and what they ask for."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from fairhuman.config import Settings
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.review.events import FILE, TABLES
from fairhuman.data.review.pictures import boxes_of, load_pictures, shown_picture
from fairhuman.data.review.settings import MAX_NAME, REASONS, ReviewSettings, clean_name
from fairhuman.data.review.store import ReviewStore, WorkList
from fairhuman.record import REGION_COLUMNS
from fairhuman.web.app import RefusedError, create_app, page, read_json
from fairhuman.web.database import open_database
from fairhuman.web.serve import serve

PICTURE_CACHE = "private, max-age=600"


class ReviewerBody(Settings):
    """Body of every request that may change something."""

    reviewer: Annotated[str, AfterValidator(clean_name)]


class DecisionBody(ReviewerBody):
    """Body of a decision."""

    key: str
    action: Literal["keep", "drop"]
    prompt: str | None = None
    reason: str | None = None


AskedT = TypeVar("AskedT", bound=ReviewerBody)


def create_review_app(folder: Path, settings: ReviewSettings, report: LoadReport | None = None) -> Starlette:
    """The app that reviews an imagefolder; decisions are in `review.sqlite` beside the pictures.

    Args:
        folder: pictures and `metadata.jsonl`.
        settings: of the review.
        report: gets what is odd about the records, and which had to be left out.

    Raises:
        DataError: the folder can't be read.
        FairHumanError: the database can't be opened or written.

    """
    review = _Review(folder, settings, report if report is not None else LoadReport())
    return create_app(review.routes(), settings.hosts, review.store.engine.dispose)


def serve_review(folder: Path, settings: ReviewSettings, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve a review until Ctrl-C.

    Args:
        folder, settings: see `create_review_app`.
        host, port: see `serve`.
        say: told how many pictures there are, what was left out, and the address.

    Raises:
        DataError: the folder can't be read.
        FairHumanError: the database can't be used, or the address can't be listened at.

    """
    report = LoadReport()
    app = create_review_app(folder, settings, report)
    for reason, count in report.counts().get("skipped", {}).items():
        say(f"{folder}: left out {count}: {reason}")
    serve(app, host, port, say)


class _Review:
    """Routes over the store; the database is asked in threads, so that a slow disk holds up nobody else."""

    def __init__(self, folder: Path, settings: ReviewSettings, report: LoadReport) -> None:
        self.title, self.settings = folder.resolve().name, settings
        self.pictures = load_pictures(folder, settings.source, report)
        self.regions = {region for picture in self.pictures.values() for region in picture.record.boxes}
        prompts = {key: picture.prompt for key, picture in self.pictures.items()}
        self.store = ReviewStore(open_database(folder / FILE, TABLES), prompts, settings)
        self.token = self.store.token()

    def routes(self) -> list[Route]:
        return [
            Route("/", self.start),
            Route("/review", self.review),
            Route("/progress", self.progress),
            Route("/picture", self.picture),
            Route("/api/work", self._asked(ReviewerBody, self.work), methods=["POST"]),
            Route("/api/decisions", self._asked(DecisionBody, self.decide), methods=["POST"]),
            Route("/api/undo", self._asked(ReviewerBody, self.undo), methods=["POST"]),
        ]

    def start(self, _: Request) -> Response:
        return self._start_page()

    def review(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        try:
            reviewer = clean_name(name)
        except ValueError as error:
            return self._start_page(name, f"A name {error}.", 422)
        if reviewer != name:
            return RedirectResponse(request.url_for("review").include_query_params(name=reviewer), 303)
        return page(
            "review.html",
            title=self.title,
            reviewer=reviewer,
            token=self.token,
            reasons=REASONS,
            regions={region: column for region, column in REGION_COLUMNS.items() if region in self.regions},
            max_prompt=self.settings.max_prompt,
        )

    def progress(self, _: Request) -> Response:
        needed = self.settings.reviews_per_picture
        return page(
            "review_progress.html", title=self.title, summary=self.store.summary(), needed=needed, reasons=REASONS
        )

    def picture(self, request: Request) -> Response:
        """A picture by the key of its record; no path ever comes from outside."""
        picture = self.pictures.get(request.query_params.get("key", ""))
        if picture is None:
            raise RefusedError(404, "There is no such picture in this data set.")
        try:
            content, kind = shown_picture(picture.record, self.settings.source.limits)
        except PictureError as error:
            raise RefusedError(404, f"This picture can't be shown: {error}.") from error
        return Response(content, media_type=kind, headers={"Cache-Control": PICTURE_CACHE})

    def work(self, asked: ReviewerBody) -> Mapping[str, Any]:
        return self._shown(self.store.work(asked.reviewer))

    def decide(self, asked: DecisionBody) -> Mapping[str, Any]:
        return self._shown(self.store.decide(asked.reviewer, asked.key, asked.action, asked.prompt, asked.reason))

    def undo(self, asked: ReviewerBody) -> Mapping[str, Any]:
        work, undone = self.store.undo(asked.reviewer)
        return {**self._shown(work), "undone": {"key": undone.key, "prompt": undone.prompt}}

    def _start_page(self, name: str = "", problem: str = "", status: int = 200) -> Response:
        summary = self.store.summary()
        return page(
            "review_start.html",
            status,
            title=self.title,
            summary=summary,
            max_name=MAX_NAME,
            name=name,
            problem=problem,
        )

    def _shown(self, work: WorkList) -> dict[str, Any]:
        """What the page needs to show the pictures in hand, and the progress."""
        return {
            "pictures": [
                {
                    "key": key,
                    "prompt": self.pictures[key].prompt,
                    "width": self.pictures[key].record.width,
                    "height": self.pictures[key].record.height,
                    "boxes": boxes_of(self.pictures[key].record),
                }
                for key in work.keys
            ],
            "total": work.total,
            "done": work.done,
            "own": work.own,
            "elsewhere": work.elsewhere,
        }

    def _asked(self, kind: type[AskedT], act: Callable[[AskedT], Mapping[str, Any]]) -> Callable[[Request], Any]:
        """An endpoint that takes `kind` from a page of this review."""

        async def endpoint(request: Request) -> Response:
            token = request.headers.get("x-review-token", "")
            if not secrets.compare_digest(token.encode(), self.token.encode()):
                raise RefusedError(403, "This page isn't of this review (wrong token): load it again.")
            return JSONResponse(await run_in_threadpool(act, await read_json(request, kind)))

        return endpoint
