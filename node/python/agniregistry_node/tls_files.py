"""Which files a node's TLS comes from: named one by one, or by a folder that has them.

    tls.crt tls.key ca.crt                     what a Kubernetes secret holds
    node-a.pem node-a-key.pem bundle.pem       what `agnictl dev ca` writes: of the node that is
                                               called so, or the only one

Nothing is read here: the engine does, and names each fault with its file and its remedy.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

SECRET_NAMES = ("tls.crt", "tls.key", "ca.crt")
DEV_BUNDLE = "bundle.pem"


@dataclass(frozen=True)
class TlsFiles:
    """Paths of three PEM files."""

    certificate: str
    key: str
    trust: str


def files_of(
    folder: str, certificate: str, key: str, trust: str, name: str = ""
) -> TlsFiles | None:
    """The files that the settings name, where a folder stands in for those that aren't named.

    None if none is named at all: the node then speaks no TLS.

    Raises:
        ValueError: With the settings at fault, where some are missing.
    """
    if not (folder or certificate or key or trust):
        return None
    if bool(certificate) != bool(key):
        raise ValueError(
            "tls_certificate_file and tls_key_file belong together; give both, or tls_dir alone"
        )
    if certificate and trust:
        return TlsFiles(certificate, key, trust)
    if not folder:
        certified = "tls_certificate_file and tls_key_file"
        given, missing = certified, "tls_trust_file"
        if trust:
            given, missing = missing, given
        raise ValueError(f"{given} needs {missing}, too, or tls_dir, a folder that has them all")
    of_folder = _in_folder(Path(folder), name, wants_node=not certificate)
    return TlsFiles(
        certificate or of_folder.certificate, key or of_folder.key, trust or of_folder.trust
    )


def _in_folder(folder: Path, name: str, *, wants_node: bool) -> TlsFiles:
    """The files of a folder: a secret's unless it is a development CA's."""
    secret = [str(folder / name) for name in SECRET_NAMES]
    if (folder / SECRET_NAMES[0]).exists() or not (folder / DEV_BUNDLE).exists():
        return TlsFiles(*secret)
    pattern = f"node-{name}.pem" if name else "node-*.pem"
    found = sorted(path for path in folder.glob(pattern) if not path.name.endswith("-key.pem"))
    if not wants_node:
        return TlsFiles("", "", str(folder / DEV_BUNDLE))
    if len(found) != 1:
        raise ValueError(
            f"tls_dir {folder} holds {len(found)} certificates {pattern}; choose one with "
            "tls_certificate_file and tls_key_file, or issue one: "
            f"agnictl dev ca issue node {name or 1} --address 127.0.0.1 --dir {folder}"
        )
    key = found[0].with_name(f"{found[0].stem}-key.pem")
    return TlsFiles(str(found[0]), str(key), str(folder / DEV_BUNDLE))


def is_loopback(listen: str) -> bool:
    """Whether a host:port is for this machine alone; of names, only localhost is known to be."""
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
