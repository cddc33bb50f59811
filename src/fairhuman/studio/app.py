"""The studio's web app: a page for each thing that it shows, from the given folders alone."""

from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairhuman.studio.base import Studio
from fairhuman.studio.compare_pages import ComparePages
from fairhuman.studio.data_pages import DataPages
from fairhuman.studio.review_pages import StudioReviews
from fairhuman.studio.run_pages import RunPages
from fairhuman.studio.settings import StudioSettings
from fairhuman.studio.start_pages import StartPages
from fairhuman.studio.starts import Starts
from fairhuman.web.app import RefusedError, create_app
from fairhuman.web.serve import serve
from fairhuman.web.site import parse_site


def create_studio_app(paths: Sequence[Path], settings: StudioSettings) -> Starlette:
    """Create the app that shows what is at and below `paths`. `app.state.root` is the path of the first page, which
    ends in a secret.

    Raises:
        DataError: a path doesn't exist or holds nothing to show.
        FairHumanError: `url` isn't an address, or the secret can't be written.
    """
    studio = Studio(paths, settings)
    starts = Starts(studio.paths)
    runs, start = RunPages(studio, starts), StartPages(studio, starts)
    data, compare = DataPages(studio), ComparePages(studio)
    reviews = StudioReviews(studio)
    hosts, site = settings.hosts, None
    if settings.url is not None:
        site, host = parse_site(settings.url)
        hosts = (*hosts, host)

    def outside(_: Request) -> Response:
        raise RefusedError(404, "Please use the whole address that the command printed; it ends in a secret.")

    def home(_: Request) -> Response:
        return studio.page("studio_home.html", "", places=studio.places(), reviews=reviews.listed())

    def close() -> None:
        data.close()
        reviews.close()

    pages = [*runs.routes(), *data.routes(), *compare.routes(), *start.routes(), *reviews.routes()]
    routes = [Route("/", outside), Route("/s/{token}", studio.get(home)), *pages]
    app = create_app(routes, hosts, close, site)
    app.state.root = studio.root
    return app


def serve_studio(
    paths: Sequence[Path],
    settings: StudioSettings,
    host: str,
    port: int,
    say: Callable[[str], None],
    proxy: str | None = None,
) -> None:
    """Serve the studio until Ctrl-C; `say` is called with the address, which ends in a secret.

    Raises:
        DataError: a path doesn't exist or holds nothing to show.
        FairHumanError: the server can't listen on the address.
    """
    app = create_studio_app(paths, settings)
    root: str = app.state.root

    def told(text: str) -> None:
        say(text)
        if text.startswith("http") and settings.url is not None:
            say(f"for others: {parse_site(settings.url)[0]}{root}")

    serve(app, host, port, told, proxy, locked=True, root=root.removeprefix("/"))
