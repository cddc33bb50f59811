"""The web app of a review by itself."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.review.current import CurrentReview
from fairhuman.data.review.pages import Opened, Review, ReviewPages, check_token
from fairhuman.data.review.settings import ReviewSettings
from fairhuman.web.app import create_app
from fairhuman.web.frame import Frame
from fairhuman.web.serve import serve
from fairhuman.web.site import parse_site

PREFIX = "/r/{review}"


def create_review_app(folder: Path, settings: ReviewSettings, report: LoadReport | None = None) -> Starlette:
    """Create the app to review an imagefolder; decisions are stored in `review.sqlite` beside the pictures. The report
    gets the findings about odd and skipped records. `app.state.root` is the path of the first page, which ends in a
    secret.

    Raises:
        DataError: the folder can't be read.
        FairHumanError: the database can't be opened or written, or `url` isn't an address.
    """
    hosts, site = settings.hosts, None
    if settings.url is not None:
        site, host = parse_site(settings.url)
        hosts = (*hosts, host)
    review = CurrentReview(folder, settings, report if report is not None else LoadReport())

    def find(request: Request) -> Opened:
        check_token(request, review.token)
        return opened_alone(review.get())

    outside = Route("/", review.get().outside)
    app = create_app([outside, *ReviewPages(PREFIX, find).routes()], hosts, review.close, site)
    app.state.root, app.state.review = PREFIX.format(review=review.token), review
    return app


def opened_alone(review: Review) -> Opened:
    """A review at the address that opens nothing else."""
    root = PREFIX.format(review=review.token)
    return Opened(review, root, Frame("review", root))


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

    with closing(app.state.review):  # also where the server can't listen
        serve(app, host, port, told, proxy, locked=True, root=root.removeprefix("/"))
