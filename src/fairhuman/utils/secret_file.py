"""Secrets that tokens in addresses are derived from, in a file that its owner alone can read."""

import base64
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from fairhuman.errors import DataError
from fairhuman.utils.files import alone

_BYTES = 32


def read_secret(path: Path, making: str, lost: str) -> bytes:
    """Return the 32 bytes of a secret, which is made on first use.

    Args:
        path: the file.
        making: what another process is doing that is making it, for messages.
        lost: what to do where the file is damaged, for messages.

    Raises:
        DataError: the secret is damaged, or another process is making it.
        OSError: the file can't be read or written.
    """
    if not path.exists():
        with alone(path.with_name(f".{path.name}.lock"), f"{path}: another process is {making}"):
            if not path.exists():
                _write(path)
    secret = path.read_bytes()
    if len(secret) != _BYTES:
        raise DataError(f"{path}: must hold {_BYTES} bytes, found {len(secret)}; {lost}")
    return secret


def derived_token(secret: bytes, what: str) -> str:
    """Return base64url(HMAC-SHA256(secret, what)), 43 characters, which tells nothing about the secret."""
    return base64.urlsafe_b64encode(hmac.digest(secret, what.encode(), hashlib.sha256)).rstrip(b"=").decode()


def _write(path: Path) -> None:
    """Write a secret atomically; mkstemp makes the file readable only by its owner from the start."""
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
