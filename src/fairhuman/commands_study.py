"""What the commands of `fairhuman study` do; `cli_study` only reads the command line."""

import csv
import io
import re
import secrets
import sys
from pathlib import Path

from rich.console import Console

from fairhuman.errors import FairHumanError
from fairhuman.files import write_text, writing
from fairhuman.study.study import DATABASE

ADMIN_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")
Place = tuple[str, int, str | None, str | None]


def run_serve(
    folder: Path,
    place: Place,
    database: str | None,
    open_link: bool,
    admin_token: str | None,
    texts: Path | None,
    dry_run: bool,
    console: Console,
) -> None:
    """Serve a study; `place`: host, port, the address that participants use, the proxy's address."""
    from fairhuman.study.serving import Access, create_study_app, load_shown, load_texts, open_store, serve, site

    host, port, url, proxy = place
    if admin_token is not None and not ADMIN_TOKEN.fullmatch(admin_token):
        raise FairHumanError("admin token must have 16 or more letters, digits, - and _; the given one has not")
    admin = admin_token or secrets.token_urlsafe(32)
    hosts = () if url is None else (site(url)[1],)
    study = load_shown(folder)
    words = load_texts() if texts is None else load_texts(texts)
    if dry_run:
        _say(console, f"{folder}: {len(study.participants)} participants; would be served at {host}:{port}")
        return
    store = open_store(study, database or folder / DATABASE)
    app = create_study_app(study, store, Access(admin, open_link, hosts), words)

    def tell(text: str) -> None:
        _say(console, text)
        if text.startswith("http"):
            root = text.partition("/ ")[0] if url is None else site(url)[0]
            _say(console, f"progress: {root}/admin/{admin if admin_token is None else 'ADMIN-TOKEN'}")

    try:
        serve(app, host, port, tell, proxy, locked=not open_link)
    finally:
        store.close()


def run_links(folder: Path, out: Path | None, url: str, database: str | None, dry_run: bool, console: Console) -> None:
    """Write participants' links; those whose number a visitor by the open link has are left out and counted."""
    from fairhuman.study.serving import load_shown, open_store, participant_tokens, site

    base, _ = site(url)
    study = load_shown(folder)
    everybody = range(len(study.participants))
    if dry_run:
        _say(console, f"{folder}: would write {len(everybody)} links at {base}")
        return
    with writing(folder):
        tokens = participant_tokens(folder, everybody)
    store = open_store(study, database or folder / DATABASE)
    try:
        invited = store.invite(tokens)
    finally:
        store.close()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("participant", "link"))
    table.writerows((number, f"{base}/p/{token}") for number, token in invited.items())
    if out is None:
        sys.stdout.write(text.getvalue())
    else:
        with writing(out):
            write_text(out, text.getvalue())
        _say(console, f"links: {out}")
    if len(invited) < len(everybody):
        _say(console, f"{len(everybody) - len(invited)} left out: others have come by the open link, or by other links")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
