"""Certificates, keys and trust bundles out of files, checked before anything is built upon them.

TLS libraries answer a wrong file with an alert from the other side of a connection, or with
silence. Here each fault is found beforehand and named with its file and its remedy.

A certificate and its key are two files, and two files can't be replaced at one moment. So who
replaces them writes the key first, and who reads them checks that they belong together and
reads again for a moment where they don't (`docs/identity.md` has the whole rule).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike, fspath
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
    PrivateKeyTypes,
    PublicKeyTypes,
)

from agniregistry.errors import (
    IdentityError,
    IdentityInvalidError,
    IdentityMissingError,
    InvalidFieldError,
)
from agniregistry.identity.spiffe import SpiffeId
from agniregistry.identity.tls import Tls

log = logging.getLogger("agniregistry.identity")

FILE_BYTES_MAX: Final = 1 << 20
"""The largest file that is read as a certificate, key or bundle, in bytes."""

RSA_BITS_MIN: Final = 2048
"""The shortest RSA key that is accepted."""

MISMATCH_PATIENCE_MS: Final = 500
"""How long to read again while certificate and key don't belong together, in milliseconds."""

_MISMATCH_PAUSE_S: Final = 0.02
_CURVES: Final = ("secp256r1", "secp384r1")
_RENEW: Final = "renew it; in development: agnictl dev ca renew"


def refusal(
    file: str | PathLike[str],
    what: str,
    remedy: str,
    kind: type[IdentityError] = IdentityInvalidError,
) -> IdentityError:
    """The error for a file: its message names file, fault and remedy, its metadata each alone."""
    path = fspath(file)
    return kind(f"{path}: {what}; {remedy}", metadata={"file": path, "remedy": remedy})


@dataclass(frozen=True, slots=True)
class Bundle:
    """The certificates that are trusted to vouch for others."""

    file: str
    """Where it came from."""
    pem: bytes
    """As read."""
    certificates: tuple[x509.Certificate, ...]
    """All of them, at least one of them valid now."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key: who one is, and the proof."""

    cert_file: str
    """Where the certificate came from."""
    chain: tuple[x509.Certificate, ...]
    """The certificate, then what leads up to a root."""
    chain_pem: bytes
    """As read."""
    key_pem: bytes
    """As read; never shown."""
    spiffe_id: SpiffeId
    """Who the certificate says this is."""

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf."""
        return self.chain[0]

    @property
    def not_after(self) -> datetime:
        """When it ends."""
        return self.certificate.not_valid_after_utc

    def __repr__(self) -> str:
        return f"Identity({self.spiffe_id}, {self.cert_file}, until {self.not_after:%F %T}Z)"


@dataclass(frozen=True, slots=True)
class Material:
    """All that one side of a connection needs."""

    bundle: Bundle
    """Whom to trust."""
    identity: Identity | None
    """Who one is; None where only the other side proves itself."""


def load(tls: Tls, *, patience_ms: int = MISMATCH_PATIENCE_MS) -> Material:
    """Reads and checks all files of a `Tls`; an `IdentityError` names the one at fault."""
    bundle = load_bundle(tls.ca_file)
    if not fspath(tls.cert_file):
        return Material(bundle, None)
    return Material(bundle, load_identity(tls.cert_file, tls.key_file, patience_ms=patience_ms))


def load_bundle(file: str | PathLike[str], *, now: datetime | None = None) -> Bundle:
    """Reads a trust bundle: CA certificates, at least one of them valid."""
    pem = _read(file, "the trust bundle")
    certificates = _certificates(file, pem)
    for certificate in certificates:
        if not is_ca(certificate):
            raise refusal(
                file,
                f"holds a certificate that is not a CA's ({certificate.subject.rfc4514_string()})",
                "name the trust bundle, not a leaf certificate",
            )
    moment = now or datetime.now(UTC)
    if all(certificate.not_valid_after_utc <= moment for certificate in certificates):
        last = max(certificate.not_valid_after_utc for certificate in certificates)
        raise refusal(
            file,
            f"every CA certificate in it has expired, the last one at {last:%F %T} UTC",
            "get the current bundle; in development: agnictl dev ca init in another folder",
        )
    return Bundle(fspath(file), pem, certificates)


def load_identity(
    cert_file: str | PathLike[str],
    key_file: str | PathLike[str],
    *,
    now: datetime | None = None,
    patience_ms: int = MISMATCH_PATIENCE_MS,
) -> Identity:
    """Reads a certificate and its key, and checks both, and that they belong together.

    It reads again for `patience_ms` while they don't, since they may just be being replaced.
    """
    deadline = time.monotonic() + patience_ms / 1000
    while True:
        chain_pem = _read(cert_file, "the certificate")
        key_pem = _read(key_file, "the private key")
        chain = _certificates(cert_file, chain_pem)
        public = _public_key(cert_file, chain[0])
        if _spki(public) == _spki(_private_key(key_file, key_pem).public_key()):
            break
        if time.monotonic() >= deadline:
            raise refusal(
                cert_file,
                f"does not belong to the key in {fspath(key_file)}",
                "name a certificate and its own key",
            )
        time.sleep(_MISMATCH_PAUSE_S)
    _warn_if_open(key_file)
    check_key_type(cert_file, public)
    _check_leaf(cert_file, chain[0], now or datetime.now(UTC))
    spiffe_id = spiffe_id_of(chain[0], cert_file)
    return Identity(fspath(cert_file), chain, chain_pem, key_pem, spiffe_id)


def _check_leaf(file: str | PathLike[str], leaf: x509.Certificate, now: datetime) -> None:
    if is_ca(leaf):
        raise refusal(file, "is a CA's certificate", "name the leaf certificate first in the file")
    if leaf.not_valid_after_utc <= now:
        raise refusal(file, f"expired at {leaf.not_valid_after_utc:%F %T} UTC", _RENEW)
    if leaf.not_valid_before_utc > now:
        raise refusal(
            file,
            f"is not valid before {leaf.not_valid_before_utc:%F %T} UTC",
            "set this machine's clock, or wait",
        )


def spiffe_id_of(certificate: x509.Certificate, file: str | PathLike[str]) -> SpiffeId:
    """Who a certificate names: the one URI among its names. `file` is for the error."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    except ValueError as error:
        raise refusal(file, f"has extensions that can't be read: {error}", _RENEW) from error
    if len(uris) != 1:
        raise refusal(
            file,
            f"names {len(uris)} URIs, and must name exactly one, its SPIFFE ID",
            "have it issued anew with one URI as subject alternative name",
        )
    try:
        return SpiffeId.parse(uris[0])
    except InvalidFieldError as error:
        raise refusal(
            file, f"names a URI that is no SPIFFE ID: {error.message}", "have it issued anew"
        ) from error


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether it may vouch for others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def check_key_type(file: str | PathLike[str], key: CertificatePublicKeyTypes) -> None:
    """Refuses keys that some part of the system could not use."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
        return
    remedy = "use a key on P-256 (or P-384, or RSA of at least 2048 bits)"
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        raise refusal(
            file,
            "has an Ed25519 key, which gRPC's Python library refuses in a TLS handshake"
            if isinstance(key, ed25519.Ed25519PublicKey)
            else "has an Ed448 key, which TLS libraries refuse",
            remedy,
        )
    raise refusal(file, "has a key of a kind that is not accepted", remedy)


def _read(file: str | PathLike[str], what: str) -> bytes:
    try:
        with Path(file).open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise refusal(
            file,
            f"{what} isn't there",
            "check the path; in development: agnictl dev ca issue",
            IdentityMissingError,
        ) from error
    except OSError as error:
        raise refusal(
            file, f"{what} can't be read: {error.strerror}", "let this user read it"
        ) from error
    if len(data) > FILE_BYTES_MAX:
        raise refusal(file, f"is larger than {FILE_BYTES_MAX} bytes", f"name {what}")
    if not data.strip():
        raise refusal(file, "is empty", "have it written anew")
    return data


def _certificates(file: str | PathLike[str], pem: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        what = "holds no certificate in PEM that can be read"
        if b"PRIVATE KEY-----" in pem:
            what = "holds a private key and no certificate"
        raise refusal(file, what, "name a file that begins -----BEGIN CERTIFICATE-----") from error


def _public_key(
    file: str | PathLike[str], certificate: x509.Certificate
) -> CertificatePublicKeyTypes:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise refusal(
            file, f"has a key that can't be read: {error}", "use a key on P-256"
        ) from error


def _private_key(file: str | PathLike[str], pem: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, None)
    except TypeError as error:
        raise refusal(
            file, "needs a passphrase", "store it without one, readable by its owner alone"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise refusal(
            file,
            "holds no private key in PEM that can be read",
            "name a file that begins -----BEGIN PRIVATE KEY-----",
        ) from error


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _warn_if_open(file: str | PathLike[str]) -> None:
    try:
        mode = Path(file).stat().st_mode
    except OSError:
        return
    if mode & 0o004:
        log.warning("%s can be read by every user of this machine; chmod 600 it", fspath(file))
