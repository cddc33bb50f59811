"""A rollback journal that SQLite plays back when its database is opened, and then deletes a file of any name."""

import struct
from pathlib import Path

_MAGIC = bytes.fromhex("d9d505f920a163d7")
_SECTOR, _NONCE, _PENDING = 512, 7, 0x40000000


def write_hot_journal(database: Path, victim: Path) -> Path:
    """Beside the database, as https://www.sqlite.org/fileformat.html#the_rollback_journal; `victim` is its
    super-journal.
    """
    content = database.read_bytes()
    size = int.from_bytes(content[16:18], "big")
    head = _MAGIC + struct.pack(">IIIII", 1, _NONCE, len(content) // size, _SECTOR, size)
    checksum = _NONCE + sum(content[place] for place in range(size - 200, 0, -200))
    page = struct.pack(">I", 1) + content[:size] + struct.pack(">I", checksum)
    name = str(victim).encode("ascii")
    end = struct.pack(">I", _PENDING // size + 1) + name + struct.pack(">II", len(name), sum(name)) + _MAGIC
    journal = database.with_name(f"{database.name}-journal")
    journal.write_bytes(head.ljust(_SECTOR, b"\0") + page + end)
    return journal
