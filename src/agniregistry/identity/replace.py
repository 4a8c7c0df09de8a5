"""Files replaced whole: whoever reads sees the old one or the new one, never a part."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

CERTIFICATE_MODE: Final = 0o644
"""Certificates and bundles are public."""

KEY_MODE: Final = 0o600
"""Keys are their owner's alone, from the first byte on."""


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Writes the data beside the file, makes it durable, and puts it in the file's place."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)  # The umask may only have taken bits away.
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def replace_pair(key_path: Path, key: bytes, certificate_path: Path, certificate: bytes) -> None:
    """Replaces a key and its certificate, the key first.

    In between they don't belong together. Readers check that and read again; they look for a
    change of the certificate, which comes last, so that they look when both are there.
    """
    replace_file(key_path, key, KEY_MODE)
    replace_file(certificate_path, certificate, CERTIFICATE_MODE)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
