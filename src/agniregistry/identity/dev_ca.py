"""A certificate authority in a folder, FOR DEVELOPMENT: its root key lies there unprotected.

    ca.pem ca-key.pem            the root: ECDSA on P-256, may sign leaves and nothing else
    bundle.pem                   what everybody trusts; name this one as the CA file
    node-1.pem node-1-key.pem    a leaf and its key, likewise operator, gateway-NAME@NAMESPACE
                                 and agent-NAME@NAMESPACE

A leaf's names are exactly one URI, its SPIFFE ID, and the DNS names and IP addresses under which
it is reached. It serves both sides of a connection, lives shortly, and is renewed with a new key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agniregistry.errors import IdentityExistsError, IdentityMissingError, InvalidFieldError
from agniregistry.identity.files import Identity, load_bundle, load_identity, refusal, spiffe_id_of
from agniregistry.identity.replace import CERTIFICATE_MODE, replace_file, replace_pair
from agniregistry.identity.spiffe import SpiffeId, check_trust_domain

DEFAULT_TRUST_DOMAIN: Final = "dev.agniregistry"
"""The trust domain of a CA that was given none."""

ROOT_VALIDITY: Final = timedelta(days=365)
"""How long a root lives."""

LEAF_VALIDITY: Final = timedelta(hours=24)
"""How long a leaf lives unless it is asked for otherwise."""

LEAF_VALIDITY_MAX: Final = timedelta(days=90)
"""How long a leaf may live: what lives long is never renewed, until it matters."""

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far a certificate's begin lies in the past, for clocks that are behind."""

STEM_BYTES_MAX: Final = 200
"""The longest file name without its endings, in bytes."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_DNS_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_NO_PASSPHRASE: Final = serialization.NoEncryption()


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate that the CA has issued."""

    name: str
    """Its file's name without ending, such as node-1."""
    spiffe_id: SpiffeId
    """Who it is."""
    dns_names: tuple[str, ...]
    """Under which names it is reached."""
    ip_addresses: tuple[str, ...]
    """Under which addresses it is reached."""
    not_before: datetime
    """When it begins, UTC."""
    not_after: datetime
    """When it ends, UTC."""
    serial: str
    """Its serial number, hexadecimal."""
    fingerprint: str
    """SHA-256 of the certificate, hexadecimal."""
    cert_file: Path
    """The certificate."""
    key_file: Path
    """The private key."""
    bundle_file: Path
    """Whom to trust."""


def file_stem(spiffe_id: SpiffeId) -> str:
    """The name of an ID's files. No two IDs share one: "@" and "+" can't stand in an ID."""
    role = spiffe_id.role
    if role is None:
        raise InvalidFieldError(
            f"{spiffe_id} is no node, operator, gateway or agent; use one of those paths",
            field="spiffe_id",
        )
    match role.kind:
        case "node":
            stem = f"node-{role.name}"
            stem += "+" if stem.endswith("-key") else ""
        case "operator":
            stem = "operator"
        case _:
            stem = f"{role.kind}-{role.name}@{role.namespace}"
            # The certificate of namespace a-key must not have the name of the key of namespace a.
            stem += "+" if stem.endswith("-key") else ""
    if len(stem) > STEM_BYTES_MAX:
        raise InvalidFieldError(
            f"name: {stem[:32]}… would make a file name of {len(stem)} bytes; "
            f"use at most {STEM_BYTES_MAX}",
            field="name",
        )
    return stem


def check_addresses(addresses: Sequence[str]) -> tuple[tuple[str, ...], tuple[Address, ...]]:
    """Sorts texts into DNS names and IP addresses; what is neither is refused."""
    names: list[str] = []
    numbers: list[Address] = []
    for text in addresses:
        try:
            number = ipaddress.ip_address(text.strip("[]"))
        except ValueError:
            labels = text.removeprefix("*.").split(".")
            if len(text) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in labels):
                raise InvalidFieldError(
                    f"address {text!r} is neither an IP address nor a DNS name; "
                    "give it without scheme and port",
                    field="address",
                ) from None
            names.append(text.lower())
        else:
            numbers.append(number)
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(numbers))


class DevCa:
    """The CA of one folder."""

    def __init__(
        self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self.folder = folder
        """Where its files lie."""
        self.certificate = certificate
        """The root."""
        self.trust_domain = spiffe_id_of(certificate, folder / "ca.pem").trust_domain
        """Whose identities it issues."""
        self._key = key

    # -- the root -------------------------------------------------------------------------

    @classmethod
    def init(
        cls,
        folder: Path,
        trust_domain: str = DEFAULT_TRUST_DOMAIN,
        *,
        validity: timedelta = ROOT_VALIDITY,
        now: datetime | None = None,
    ) -> DevCa:
        """Makes a CA; `IdentityExistsError` where one is already: nobody's root is overwritten."""
        check_trust_domain(trust_domain)
        if (folder / "ca.pem").exists():  # A key alone was left by an unfinished init.
            raise refusal(
                folder / "ca.pem",
                "there is a CA already",
                "use it, or name another folder",
                IdentityExistsError,
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        root = _root(trust_domain, key, _now(now), validity)
        pem = root.public_bytes(serialization.Encoding.PEM)
        # Keys in a working copy must never be committed by accident.
        replace_file(folder / ".gitignore", b"*\n", CERTIFICATE_MODE)
        replace_file(folder / "bundle.pem", pem, CERTIFICATE_MODE)
        replace_pair(folder / "ca-key.pem", _key_pem(key), folder / "ca.pem", pem)
        return cls(folder, root, key)

    @classmethod
    def open(cls, folder: Path, *, now: datetime | None = None) -> DevCa:
        """The CA of a folder; `IdentityMissingError` where there is none."""
        cert_file, key_file = folder / "ca.pem", folder / "ca-key.pem"
        for file in (cert_file, key_file):
            if not file.exists():
                raise refusal(
                    file,
                    "there is no development CA here",
                    f"agnictl dev ca init --dir {folder}",
                    IdentityMissingError,
                )
        root = load_bundle(cert_file, now=now).certificates[0]
        try:
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise refusal(key_file, "is damaged", "make a CA in another folder") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != root.public_key():
            raise refusal(
                key_file, f"does not belong to {cert_file}", "make a CA in another folder"
            )
        return cls(folder, root, key)

    @property
    def bundle_file(self) -> Path:
        """What everybody trusts."""
        return self.folder / "bundle.pem"

    # -- leaves ---------------------------------------------------------------------------

    def issue(
        self,
        spiffe_id: SpiffeId,
        addresses: Sequence[str] = (),
        *,
        validity: timedelta = LEAF_VALIDITY,
        now: datetime | None = None,
    ) -> Leaf:
        """Issues a leaf with a new key, in place of one that the ID may already have."""
        stem = file_stem(spiffe_id)
        if spiffe_id.trust_domain != self.trust_domain:
            raise InvalidFieldError(
                f"{spiffe_id} is not of this CA's trust domain {self.trust_domain}; "
                "issue it from its own CA",
                field="trust_domain",
            )
        if not timedelta(0) < validity <= LEAF_VALIDITY_MAX:
            raise InvalidFieldError(
                f"a leaf lives above 0 and at most {LEAF_VALIDITY_MAX.days} days, not {validity}; "
                "renew it instead",
                field="validity",
            )
        names, numbers = check_addresses(addresses)
        key = ec.generate_private_key(ec.SECP256R1())
        begin = _now(now)
        end = min(begin + validity, self.certificate.not_valid_after_utc)
        certificate = _leaf(self.certificate, self._key, key, spiffe_id, names, numbers, begin, end)
        replace_pair(
            self.folder / f"{stem}-key.pem",
            _key_pem(key),
            self.folder / f"{stem}.pem",
            certificate.public_bytes(serialization.Encoding.PEM),
        )
        return self._describe(stem, certificate, spiffe_id)

    def renew(
        self,
        name: str,
        *,
        validity: timedelta | None = None,
        now: datetime | None = None,
    ) -> Leaf:
        """Issues the same names anew with a new key, for as long as before unless told else."""
        old = self.show(name)
        before = min(old.not_after - old.not_before - CLOCK_SKEW, LEAF_VALIDITY_MAX)
        return self.issue(
            old.spiffe_id,
            (*old.dns_names, *old.ip_addresses),
            validity=validity or max(before, timedelta(seconds=1)),
            now=now,
        )

    def show(self, name: str) -> Leaf:
        """One leaf by its file's name without ending, expired or not."""
        path = self.folder / f"{name}.pem"
        if name not in self._names():
            known = ", ".join(self._names()) or "none yet"
            raise refusal(
                path,
                f"there is no such certificate (there are: {known})",
                "agnictl dev ca issue",
                IdentityMissingError,
            )
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError as error:
            raise refusal(path, "is damaged", "issue it anew with agnictl dev ca issue") from error
        return self._describe(name, certificate, spiffe_id_of(certificate, path))

    def list(self) -> tuple[Leaf, ...]:
        """All leaves of the folder, by name."""
        return tuple(self.show(name) for name in self._names())

    def load(self, name: str) -> Identity:
        """A leaf with its key, checked: what a program would load."""
        leaf = self.show(name)
        return load_identity(leaf.cert_file, leaf.key_file)

    def _names(self) -> tuple[str, ...]:
        found = (path.stem for path in self.folder.glob("*.pem") if not path.name.startswith("."))
        return tuple(sorted(
            stem
            for stem in found
            if stem not in ("ca", "bundle") and (self.folder / f"{stem}-key.pem").exists()
        ))  # fmt: skip

    def _describe(self, stem: str, certificate: x509.Certificate, spiffe_id: SpiffeId) -> Leaf:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return Leaf(
            name=stem,
            spiffe_id=spiffe_id,
            dns_names=tuple(names.get_values_for_type(x509.DNSName)),
            ip_addresses=tuple(str(each) for each in names.get_values_for_type(x509.IPAddress)),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            serial=f"{certificate.serial_number:x}",
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            cert_file=self.folder / f"{stem}.pem",
            key_file=self.folder / f"{stem}-key.pem",
            bundle_file=self.bundle_file,
        )


def _now(given: datetime | None) -> datetime:
    """Certificates know whole seconds only."""
    return (given or datetime.now(UTC)).replace(microsecond=0)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _NO_PASSPHRASE
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "AgniRegistry development"),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
    ])  # fmt: skip


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """A root signs certificates and lists of revoked ones, a leaf handshakes: nothing else."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _root(
    trust_domain: str, key: ec.EllipticCurvePrivateKey, begin: datetime, validity: timedelta
) -> x509.Certificate:
    name = _name(f"{trust_domain} development CA")
    public = key.public_key()
    uri = x509.UniformResourceIdentifier(str(SpiffeId(trust_domain)))
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - CLOCK_SKEW)
        .not_valid_after(begin + validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    spiffe_id: SpiffeId,
    names: Sequence[str],
    numbers: Sequence[Address],
    begin: datetime,
    end: datetime,
) -> x509.Certificate:
    alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
    alternatives += [x509.DNSName(name) for name in names]
    alternatives += [x509.IPAddress(number) for number in numbers]
    issuer = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(_name(file_stem(spiffe_id)))
        .issuer_name(root.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
