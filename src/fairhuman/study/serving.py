"""Everything needed to serve a study, with one clear error if packages are missing.

store = open_store(study := load_shown(folder), folder / DATABASE)
serve(create_study_app(study, store, Access(admin_token)), "127.0.0.1", 8080, print)    # until Ctrl-C
"""

from fairhuman.errors import FairHumanError
from fairhuman.study.study import DATABASE
from fairhuman.utils.files import writing

try:
    from fairhuman.study.app import Access, create_study_app
    from fairhuman.study.links import parse_site, participant_tokens
    from fairhuman.study.shown import ShownStudy, load_shown
    from fairhuman.study.store import open_store
    from fairhuman.study.texts import load_texts
    from fairhuman.web.serve import serve
except ModuleNotFoundError as error:
    raise FairHumanError(f"a study needs more packages: pip install 'fairhuman[web]' ({error})") from error


def invite(study: ShownStudy, database: str | None, base: str) -> dict[int, str]:
    """Create participants' links below the URL `base`; numbers taken by visitors of the open link get none.

    Raises:
        DataError, FairHumanError: as in `participant_tokens` and `open_store`; `database` None is the study's own file.
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
    "create_study_app",
    "invite",
    "load_shown",
    "load_texts",
    "open_store",
    "parse_site",
    "participant_tokens",
    "serve",
]
