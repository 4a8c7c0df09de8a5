"""`Tls`: which files a client proves itself with, and whom it trusts. Reads none of them."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a client's TLS: they may be replaced while it runs."""

    ca_file: str | PathLike[str]
    """The trust bundle that the registry's certificates are checked against, in PEM."""
    cert_file: str | PathLike[str] = ""
    """The client's own certificate and what leads up to the bundle's roots, in PEM."""
    key_file: str | PathLike[str] = ""
    """The certificate's private key, in PEM, without a passphrase."""
    server_name: str = ""
    """The name that the registry's certificate must have, where it isn't the target's host: for
    tunnels and port forwards. Whoever sets it to what an attacker holds a certificate for
    trusts the attacker."""
    check_interval_ms: int = 2_000
    """How often the files are looked at, in milliseconds. Looking costs three system calls;
    looking rarely delays the switch to a new certificate."""

    def __post_init__(self) -> None:
        if not fspath(self.ca_file):
            raise ValueError("ca_file is missing; name the trust bundle")
        if bool(fspath(self.cert_file)) != bool(fspath(self.key_file)):
            raise ValueError("cert_file and key_file belong together; give both or neither")
        if self.check_interval_ms < 0:
            raise ValueError("check_interval_ms must be at least 0")

    @property
    def files(self) -> tuple[str, ...]:
        """The paths that are in use, the bundle first."""
        return tuple(fspath(file) for file in (self.ca_file, self.cert_file, self.key_file) if file)
