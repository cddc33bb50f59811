"""Participants' links, derived from a secret in the study's folder, so that the database stores only hashes.

    token of participant n = base64url(HMAC-SHA256(secret, "participant n"))

Neither the links nor the database allow anyone to forge further links.
"""

import base64
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fairhuman.errors import DataError
from fairhuman.study.shown import ShownStudy
from fairhuman.study.store import open_store
from fairhuman.study.study import DATABASE
from fairhuman.utils.files import alone, writing

SECRET = "links.key"
_BYTES = 32


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
    path = folder / SECRET
    with alone(folder / f".{SECRET}.lock", f"{path}: another process is creating links"):
        if not path.exists():
            _write_secret(path)
        secret = path.read_bytes()
    if len(secret) != _BYTES:
        raise DataError(
            f"{path}: must hold {_BYTES} bytes, found {len(secret)}; restore the file with which the links were made"
        )
    return {number: _token(secret, number) for number in participants}


def _token(secret: bytes, number: int) -> str:
    digest = hmac.digest(secret, f"participant {number}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _write_secret(path: Path) -> None:
    """Write the secret atomically; mkstemp makes the file readable only by its owner from the start."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
