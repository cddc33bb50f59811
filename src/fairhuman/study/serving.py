"""All that serving a study takes, behind one clear word where packages are missing.

store = open_store(study := load_shown(folder), folder / DATABASE)
serve(create_study_app(study, store, Access(admin_token)), "127.0.0.1", 8080, print)    # until Ctrl-C
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairhuman.errors import FairHumanError
from fairhuman.study.study import DATABASE
from fairhuman.utils.files import writing

try:
    from fairhuman.study.app import Access, create_study_app
    from fairhuman.study.links import participant_tokens, site
    from fairhuman.study.shown import ShownStudy, load_shown
    from fairhuman.study.store import open_store
    from fairhuman.study.texts import load_texts
    from fairhuman.web.serve import serve
except ModuleNotFoundError as error:
    raise FairHumanError(f"a study needs some more packages: pip install 'fairhuman[web]' ({error})") from error

ADMIN_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")


@dataclass(frozen=True)
class ServeOptions:
    """How a study is served.

    Attributes:
        host, port: where to listen; port 0 takes a free one.
        database: URL; None: the file in the study's folder.
        url: address that participants use; None: that of the server.
        open_link: whether a visitor without a link gets the next free number.
        admin_token: opens the page of progress; None: a new one, which is said.
        proxy: address of a proxy whose X-Forwarded-For and -Proto are believed.
        texts: JSON file of what participants read; None: the package's own.

    """

    host: str = "127.0.0.1"
    port: int = 8080
    database: str | None = None
    url: str | None = None
    open_link: bool = False
    admin_token: str | None = None
    proxy: str | None = None
    texts: Path | None = None


def serve_study(folder: Path, options: ServeOptions, say: Callable[[str], None], dry_run: bool = False) -> None:
    """Check everything, then serve a study until Ctrl-C; a dry run only checks.

    Raises:
        DataError: the study, its pictures or the texts can't be used.
        FairHumanError: an admin token of another form, a wrong URL, or as of `open_store` and `serve`.

    """
    given, url = options.admin_token, options.url
    if given is not None and not ADMIN_TOKEN.fullmatch(given):
        raise FairHumanError("the admin token must have 16 or more letters, digits, - and _; the given one has not")
    admin = given or secrets.token_urlsafe(32)
    access = Access(admin, options.open_link, () if url is None else (site(url)[1],))
    study = load_shown(folder)
    words = load_texts() if options.texts is None else load_texts(options.texts)
    if dry_run:
        say(f"{folder}: {len(study.participants)} participants; would be served at {options.host}:{options.port}")
        return

    def tell(text: str) -> None:
        say(text)
        if text.startswith("http"):
            root = text.partition("/ ")[0] if url is None else site(url)[0]
            say(f"progress: {root}/admin/{admin if given is None else 'ADMIN-TOKEN'}")

    store = open_store(study, options.database or folder / DATABASE)
    try:
        app = create_study_app(study, store, access, words)
        serve(app, options.host, options.port, tell, options.proxy, locked=not options.open_link)
    finally:
        store.close()


def invite(study: ShownStudy, database: str | None, base: str) -> dict[int, str]:
    """Links by participant; those whose number a visitor by the open link has, or who has another link, are left out.

    Args:
        study: from `load_shown`.
        database: URL; None: the file in the study's folder.
        base: address before the links, as `site` gives it.

    Raises:
        DataError, FairHumanError: as of `participant_tokens` and `open_store`.

    """
    with writing(study.folder):
        tokens = participant_tokens(study.folder, range(len(study.participants)))
    store = open_store(study, database or study.folder / DATABASE)
    try:
        return {number: f"{base}/p/{token}" for number, token in store.invite(tokens).items()}
    finally:
        store.close()


__all__ = [
    "Access",
    "ServeOptions",
    "create_study_app",
    "invite",
    "load_shown",
    "load_texts",
    "open_store",
    "participant_tokens",
    "serve",
    "serve_study",
    "site",
]
