"""The web app of a review: its pages and API."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlencode

from pydantic import AfterValidator
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from fairhuman.config import Settings
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.review.events import open_review
from fairhuman.data.review.pictures import boxes_by_region, browser_picture, load_pictures
from fairhuman.data.review.settings import MAX_NAME, REASONS, ReviewSettings, clean_name
from fairhuman.data.review.store import ReviewStore, WorkList
from fairhuman.data.review.unread import unread_text
from fairhuman.data.sources.rows import printable
from fairhuman.record import region_column
from fairhuman.report.colours import colours
from fairhuman.web.app import RefusedError, create_app, page, read_json
from fairhuman.web.serve import serve
from fairhuman.web.site import parse_site

PICTURE_CACHE = "private, max-age=600"


class ReviewerBody(Settings):
    """Body of every request that may change data."""

    reviewer: Annotated[str, AfterValidator(clean_name)]


class PromptBody(ReviewerBody):
    """Body of a question about a prompt that may be kept."""

    prompt: str


class DecisionBody(ReviewerBody):
    """Body of a decision."""

    key: str
    action: Literal["keep", "drop"]
    prompt: str | None = None
    reason: str | None = None


BodyT = TypeVar("BodyT", bound=ReviewerBody)


def create_review_app(folder: Path, settings: ReviewSettings, report: LoadReport | None = None) -> Starlette:
    """Create the app to review an imagefolder; decisions are stored in `review.sqlite` beside the pictures. The report
    gets the findings about odd and skipped records. `app.state.root` is the path of the first page, which ends in a
    secret.

    Raises:
        DataError: the folder can't be read.
        FairHumanError: the database can't be opened or written, or `url` isn't an address.
    """
    review = _Review(folder, settings, report if report is not None else LoadReport())
    hosts, site = settings.hosts, None
    if settings.url is not None:
        site, host = parse_site(settings.url)
        hosts = (*hosts, host)
    app = create_app(review.routes(), hosts, review.store.engine.dispose, site)
    app.state.root = review.root
    return app


def serve_review(
    folder: Path, settings: ReviewSettings, host: str, port: int, say: Callable[[str], None], proxy: str | None = None
) -> None:
    """Serve a review until Ctrl-C; `say` is called with messages about skipped records and the address.

    The address ends in a secret, without which no page opens. It stays the same when the review is served again.

    Raises:
        DataError: the folder can't be read.
        FairHumanError: the database can't be used, or the server can't listen on the address.
    """
    report = LoadReport()
    app = create_review_app(folder, settings, report)
    for reason, count in report.counts().get("skipped", {}).items():
        say(f"{folder}: skipped {count}: {reason}")
    root = app.state.root

    def told(text: str) -> None:
        say(text)
        if text.startswith("http") and settings.url is not None:
            say(f"for reviewers: {parse_site(settings.url)[0]}{root}")

    serve(app, host, port, told, proxy, locked=True, root=root.removeprefix("/"))


class _Review:
    """The routes; database queries run in threads, so that a slow disk doesn't block other requests."""

    def __init__(self, folder: Path, settings: ReviewSettings, report: LoadReport) -> None:
        self.title, self.settings = printable(folder.resolve().name), settings
        self.pictures = load_pictures(folder, settings.source, report)
        self.regions = dict.fromkeys(region for picture in self.pictures.values() for region in picture.record.boxes)
        prompts = {key: picture.prompt for key, picture in self.pictures.items()}
        self.store = ReviewStore(open_review(folder), prompts, settings)
        self.token = self.store.token()
        self.root = f"/r/{self.token}"

    def routes(self) -> list[Route]:
        return [
            Route("/", self.outside),
            Route("/r/{token}", self.start),
            Route("/r/{token}/review", self.review),
            Route("/r/{token}/progress", self.progress),
            Route("/r/{token}/picture", self.picture),
            Route("/r/{token}/api/work", self._endpoint(ReviewerBody, self.work), methods=["POST"]),
            Route("/r/{token}/api/decisions", self._endpoint(DecisionBody, self.decide), methods=["POST"]),
            Route("/r/{token}/api/unread", self._endpoint(PromptBody, self.unread), methods=["POST"]),
            Route("/r/{token}/api/undo", self._endpoint(ReviewerBody, self.undo), methods=["POST"]),
        ]

    def outside(self, _: Request) -> Response:
        raise RefusedError(404, "Please use the whole address that the command printed; it ends in a secret.")

    def start(self, request: Request) -> Response:
        self._check(request)
        return self._start_page()

    def review(self, request: Request) -> Response:
        self._check(request)
        name = request.query_params.get("name", "")
        try:
            reviewer = clean_name(name)
        except ValueError as error:
            return self._start_page(name, f"A name {error}.", 422)
        if reviewer != name:
            return RedirectResponse(f"{self.root}/review?{urlencode({'name': reviewer})}", 303)
        return page(
            "review.html",
            title=self.title,
            reviewer=reviewer,
            root=self.root,
            reasons=REASONS,
            regions=colours(self.regions),
            region_column=region_column,
            max_prompt=self.settings.max_prompt,
        )

    def progress(self, request: Request) -> Response:
        self._check(request)
        return page(
            "review_progress.html",
            title=self.title,
            root=self.root,
            summary=self.store.summary(),
            needed=self.settings.reviews_per_picture,
            reasons=REASONS,
        )

    def picture(self, request: Request) -> Response:
        """A picture by the key of its record; requests can't name paths."""
        self._check(request)
        picture = self.pictures.get(request.query_params.get("key", ""))
        if picture is None:
            raise RefusedError(404, "There is no such picture in this data set.")
        try:
            content, kind = browser_picture(picture.record, self.settings.source.limits)
        except PictureError as error:
            raise RefusedError(404, f"This picture can't be shown: {error}.") from error
        return Response(content, media_type=kind, headers={"Cache-Control": PICTURE_CACHE})

    def work(self, body: ReviewerBody) -> Mapping[str, Any]:
        return self._work_list(self.store.work(body.reviewer))

    def decide(self, body: DecisionBody) -> Mapping[str, Any]:
        return self._work_list(self.store.decide(body.reviewer, body.key, body.action, body.prompt, body.reason))

    def unread(self, body: PromptBody) -> Mapping[str, Any]:
        return {"unread": unread_text(body.prompt)}

    def undo(self, body: ReviewerBody) -> Mapping[str, Any]:
        work, undone = self.store.undo(body.reviewer)
        return {**self._work_list(work), "undone": {"key": undone.key, "prompt": undone.prompt}}

    def _start_page(self, name: str = "", problem: str = "", status: int = 200) -> Response:
        summary = self.store.summary()
        return page(
            "review_start.html",
            status,
            title=self.title,
            root=self.root,
            summary=summary,
            max_name=MAX_NAME,
            name=name,
            problem=problem,
        )

    def _work_list(self, work: WorkList) -> dict[str, Any]:
        """The reviewer's pictures and the progress, for the page."""
        return {
            "pictures": [
                {
                    "key": key,
                    "prompt": self.pictures[key].prompt,
                    "width": self.pictures[key].record.width,
                    "height": self.pictures[key].record.height,
                    "boxes": boxes_by_region(self.pictures[key].record),
                }
                for key in work.keys
            ],
            "total": work.total,
            "done": work.done,
            "own": work.own,
            "elsewhere": work.elsewhere,
        }

    def _check(self, request: Request) -> None:
        """Refuse a request whose address has another secret."""
        if not secrets.compare_digest(request.path_params["token"].encode(), self.token.encode()):
            raise RefusedError(404, "This address is of another review, or incomplete.")

    def _endpoint(self, kind: type[BodyT], act: Callable[[BodyT], Mapping[str, Any]]) -> Callable[[Request], Any]:
        """An endpoint that accepts a body of `kind`."""

        async def endpoint(request: Request) -> Response:
            self._check(request)
            return JSONResponse(await run_in_threadpool(act, await read_json(request, kind)))

        return endpoint
