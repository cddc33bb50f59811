"""Participants' links, derived from a secret in the study's folder, so that the database stores only hashes.

    token of participant n = base64url(HMAC-SHA256(secret, "participant n"))

Neither the links nor the database allow anyone to forge further links.
"""

from collections.abc import Iterable
from pathlib import Path

from fairhuman.study.shown import ShownStudy
from fairhuman.study.store import open_store
from fairhuman.study.study import DATABASE
from fairhuman.utils.files import writing
from fairhuman.utils.secret_file import derived_token, read_secret

SECRET = "links.key"


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


def participant_tokens(folder: Path, participants: Iterable[int]) -> dict[int, str]:
    """Tokens by participant, the same on every call. The secret is created on first use, readable only by its owner.

    Raises:
        DataError: the secret is damaged, or another process is creating it.
        OSError: the secret can't be read or written.
    """
    secret = read_secret(folder / SECRET, "creating links", "restore the file with which the links were made")
    return {number: derived_token(secret, f"participant {number}") for number in participants}
