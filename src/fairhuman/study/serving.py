"""Everything needed to serve a study, with one clear error if packages are missing.

store = open_store(study := load_shown(folder), folder / DATABASE)
serve(create_study_app(study, store, Access(admin_token)), "127.0.0.1", 8080, print)    # until Ctrl-C
"""

from fairhuman.errors import FairHumanError

try:
    from fairhuman.study.app import Access, create_study_app
    from fairhuman.study.links import parse_site, participant_tokens
    from fairhuman.study.shown import load_shown
    from fairhuman.study.store import open_store
    from fairhuman.study.texts import load_texts
    from fairhuman.web.serve import serve
except ModuleNotFoundError as error:
    raise FairHumanError(f"a study needs more packages: pip install 'fairhuman[web]' ({error})") from error

__all__ = [
    "Access",
    "create_study_app",
    "load_shown",
    "load_texts",
    "open_store",
    "parse_site",
    "participant_tokens",
    "serve",
]
