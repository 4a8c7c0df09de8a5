"""A cluster's certificates and kubeconfigs, made anew for each cluster and gone with it."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=7)
CLOCK_SKEW = timedelta(minutes=5)
SERVICE_ACCOUNT_KEY_BITS = 2048
API_SERVER_NAMES = (
    *("kubernetes", "kubernetes.default", "kubernetes.default.svc"),
    *("kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1", "10.96.0.1"),
)
MASTERS = "system:masters"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """The certificate as a file."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """The key as a file."""
        return private_pem(self.key)


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """A key as a file, not encrypted: it lives for one test run."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def general_name(text: str) -> x509.GeneralName:
    """An address where the text is one, else a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def issue(
    common_name: str, *, issuer: Pair | None, organization: str = "", names: Sequence[str] = ()
) -> Pair:
    """A new certificate; without an issuer it is an authority of its own."""
    is_authority = issuer is None
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    subject = x509.Name(attributes)
    signer = key if issuer is None else issuer.key
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        **dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        ),
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not is_authority:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    if names:
        alternatives = x509.SubjectAlternativeName([general_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return Pair(builder.sign(signer, hashes.SHA256()), key)


class Authority:
    """The cluster's own certificate authority, and the folder that it writes into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.root = issue("e2e", issuer=None)
        self.save("ca", self.root)
        accounts = rsa.generate_private_key(65537, SERVICE_ACCOUNT_KEY_BITS)
        self.write("accounts.key", private_pem(accounts))
        public = accounts.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.write("accounts.pub", public)

    def write(self, name: str, content: bytes) -> Path:
        """A file that only its owner reads."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path

    def save(self, name: str, pair: Pair) -> None:
        """Writes NAME.crt and NAME.key."""
        self.write(f"{name}.crt", pair.certificate_pem())
        self.write(f"{name}.key", pair.key_pem())

    def certify(
        self, name: str, common_name: str, *, organization: str = "", names: Sequence[str] = ()
    ) -> Pair:
        """A certificate for server and client use, written as NAME.crt and NAME.key."""
        pair = issue(common_name, issuer=self.root, organization=organization, names=names)
        self.save(name, pair)
        return pair

    def kubeconfig(self, name: str, server: str, pair: Pair) -> Path:
        """NAME.kubeconfig: who it is that talks, and to which API server."""

        def encoded(data: bytes) -> str:
            return base64.b64encode(data).decode()

        authority = encoded(self.root.certificate_pem())
        cluster = {"server": server, "certificate-authority-data": authority}
        user = {
            "client-certificate-data": encoded(pair.certificate_pem()),
            "client-key-data": encoded(pair.key_pem()),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "e2e",
            "clusters": [{"name": "e2e", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": name}}],
        }
        return self.write(f"{name}.kubeconfig", yaml.safe_dump(config).encode())
