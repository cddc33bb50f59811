"""The pages and the API of a review, as routes that an app has below any address of its own."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.review.api import DecisionBody, PromptBody, ReviewerBody
from fairhuman.data.review.events import open_review
from fairhuman.data.review.pictures import boxes_by_region, browser_picture, load_pictures
from fairhuman.data.review.settings import MAX_NAME, REASONS, ReviewSettings, clean_name
from fairhuman.data.review.store import ReviewStore, WorkList
from fairhuman.data.review.unread import unread_text
from fairhuman.data.sources.rows import printable
from fairhuman.record import region_column
from fairhuman.report.colours import colours
from fairhuman.web.app import RefusedError, page, read_json
from fairhuman.web.frame import Frame

PICTURE_CACHE = "private, max-age=600"
BodyT = TypeVar("BodyT", bound=ReviewerBody)


class Review:
    """A folder's pictures and the decisions on them.

    Attributes:
        token: the secret in the address of its pages; it stays the same when the review is opened again.

    Raises:
        DataError: the folder can't be read.
        FairHumanError: the database can't be opened or written.
    """

    def __init__(self, folder: Path, settings: ReviewSettings, report: LoadReport) -> None:
        self.title, self.settings = printable(folder.resolve().name), settings
        self.pictures = load_pictures(folder, settings.source, report)
        self.regions = dict.fromkeys(region for picture in self.pictures.values() for region in picture.record.boxes)
        prompts = {key: picture.prompt for key, picture in self.pictures.items()}
        self.store = ReviewStore(open_review(folder), prompts, settings)
        try:
            self.token = self.store.token()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self.store.engine.dispose()

    def outside(self, _: Request) -> Response:
        """The answer to an address without the secret."""
        raise RefusedError(404, "Please use the whole address that the command printed; it ends in a secret.")

    def work(self, body: ReviewerBody) -> Mapping[str, Any]:
        """The reviewer's next pictures."""
        return self._work_list(self.store.work(body.reviewer))

    def decide(self, body: DecisionBody) -> Mapping[str, Any]:
        """Store a decision; the next pictures."""
        return self._work_list(self.store.decide(**body.model_dump()))

    def unread(self, body: PromptBody) -> Mapping[str, Any]:
        """What isn't read of a prompt."""
        return {"unread": unread_text(body.prompt)}

    def undo(self, body: ReviewerBody) -> Mapping[str, Any]:
        """Take back the reviewer's last decision; its picture, and the next ones."""
        work, undone = self.store.undo(body.reviewer)
        return {**self._work_list(work), "undone": {"key": undone.key, "prompt": undone.prompt}}

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


@dataclass(frozen=True, slots=True)
class Opened:
    """A review as it is open at an address.

    Attributes:
        root: path of its first page.
        frame: the head of its pages.
        share: path of the first page for people who may review and do nothing else; None: `root` itself.
        state: says whether the decisions are applied, where a page may apply them; see `review_state`.
    """

    review: Review
    root: str
    frame: Frame
    share: str | None = None
    state: Callable[[], str] | None = None


def check_token(request: Request, token: str) -> None:
    """Refuse a request whose address has another secret than that of a review."""
    if not secrets.compare_digest(request.path_params["review"].encode(), token.encode()):
        raise RefusedError(404, "This address is of another review, or incomplete.")


class ReviewPages:
    """The routes below `prefix`, in which `{review}` is the secret; `find` gives the review of a request, or refuses.

    Database queries run in threads, so that a slow disk doesn't block other requests.
    """

    def __init__(self, prefix: str, find: Callable[[Request], Opened]) -> None:
        self._prefix, self._find = prefix, find

    def routes(self) -> list[Route]:
        """Pages and their API."""
        prefix, post = self._prefix, self._endpoint
        return [
            Route(prefix, self._start),
            Route(f"{prefix}/review", self._review),
            Route(f"{prefix}/progress", self._progress),
            Route(f"{prefix}/picture", self._picture),
            Route(f"{prefix}/api/work", post(ReviewerBody, Review.work), methods=["POST"]),
            Route(f"{prefix}/api/decisions", post(DecisionBody, Review.decide), methods=["POST"]),
            Route(f"{prefix}/api/unread", post(PromptBody, Review.unread), methods=["POST"]),
            Route(f"{prefix}/api/undo", post(ReviewerBody, Review.undo), methods=["POST"]),
        ]

    def _start(self, request: Request) -> Response:
        return _start_page(self._find(request))

    def _review(self, request: Request) -> Response:
        opened = self._find(request)
        review, name = opened.review, request.query_params.get("name", "")
        try:
            reviewer = clean_name(name)
        except ValueError as error:
            return _start_page(opened, name, f"A name {error}.", 422)
        if reviewer != name:
            return RedirectResponse(f"{opened.root}/review?{urlencode({'name': reviewer})}", 303)
        return page(
            "review.html",
            title=review.title,
            reviewer=reviewer,
            root=opened.root,
            frame=opened.frame,
            reasons=REASONS,
            regions=colours(review.regions),
            region_column=region_column,
            max_prompt=review.settings.max_prompt,
        )

    def _progress(self, request: Request) -> Response:
        opened = self._find(request)
        return page(
            "review_progress.html",
            title=opened.review.title,
            root=opened.root,
            frame=opened.frame,
            state="" if opened.state is None else opened.state(),
            summary=opened.review.store.summary(),
            needed=opened.review.settings.reviews_per_picture,
            reasons=REASONS,
        )

    def _picture(self, request: Request) -> Response:
        """A picture by the key of its record; requests can't name paths."""
        review = self._find(request).review
        picture = review.pictures.get(request.query_params.get("key", ""))
        if picture is None:
            raise RefusedError(404, "There is no such picture in this data set.")
        try:
            content, kind = browser_picture(picture.record, review.settings.source.limits)
        except PictureError as error:
            raise RefusedError(404, f"This picture can't be shown: {error}.") from error
        return Response(content, media_type=kind, headers={"Cache-Control": PICTURE_CACHE})

    def _endpoint(
        self, kind: type[BodyT], act: Callable[[Review, BodyT], Mapping[str, Any]]
    ) -> Callable[[Request], Any]:
        """An endpoint that accepts a body of `kind`."""

        async def endpoint(request: Request) -> Response:
            opened = await run_in_threadpool(self._find, request)
            return JSONResponse(await run_in_threadpool(act, opened.review, await read_json(request, kind)))

        return endpoint


def _start_page(opened: Opened, name: str = "", problem: str = "", status: int = 200) -> Response:
    return page(
        "review_start.html",
        status,
        title=opened.review.title,
        root=opened.root,
        frame=opened.frame,
        share=opened.share,
        summary=opened.review.store.summary(),
        max_name=MAX_NAME,
        name=name,
        problem=problem,
    )
