"""Each fault that files can have is found before use, and named with its file and a remedy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from agniregistry.errors import IdentityError, IdentityMissingError
from agniregistry.identity import DevCa, Leaf, SpiffeId, Tls, load, load_bundle, load_identity

NOW = datetime.now(UTC)
PEM = serialization.Encoding.PEM
OWN = "spiffe://dev.agniregistry/operator"


def write(folder: Path, key: object, uris: list[str], *, is_ca: bool = False) -> tuple[Path, Path]:
    """A self-signed pair as told."""
    name = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(minutes=1))
        .not_valid_after(NOW + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=True)
    hashed = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate, file = folder / "made.pem", folder / "made-key.pem"
    certificate.write_bytes(builder.sign(key, hashed).public_bytes(PEM))
    file.write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    file.chmod(0o600)
    return certificate, file


def refused(file: Path, match: str, read: Callable[[], object]) -> IdentityError:
    """The error, after it was seen to name file, fault and remedy."""
    with pytest.raises(IdentityError, match=match) as caught:
        read()
    error = caught.value
    assert error.metadata["file"] == str(file)
    assert str(file) in error.message
    assert error.message.endswith(error.metadata["remedy"])
    return error


def test_what_is_right_is_loaded(agent: Leaf, caplog: pytest.LogCaptureFixture) -> None:
    material = load(Tls(agent.bundle_file, agent.cert_file, agent.key_file))
    assert material.identity is not None
    assert material.identity.spiffe_id == agent.spiffe_id
    assert material.identity.not_after == agent.not_after
    assert "PRIVATE" not in repr(material.identity)
    assert load(Tls(agent.bundle_file)).identity is None
    assert not caplog.records
    agent.key_file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        load_identity(agent.cert_file, agent.key_file)
    assert "chmod 600" in caplog.text


def test_missing_empty_huge_and_not_pem(agent: Leaf, tmp_path: Path) -> None:
    nowhere, bad = tmp_path / "nowhere.pem", tmp_path / "bad.pem"
    error = refused(nowhere, "isn't there", lambda: load_bundle(nowhere))
    assert type(error) is IdentityMissingError
    refused(nowhere, "isn't there", lambda: load_identity(agent.cert_file, nowhere))
    refused(tmp_path, "can't be read", lambda: load_bundle(tmp_path))
    for content, match in ((b" \n", "empty"), (b"x" * (1 << 21), "larger"), (b"x", "no cert")):
        bad.write_bytes(content)
        refused(bad, match, lambda: load_bundle(bad))
    refused(agent.key_file, "holds a private key", lambda: load_bundle(agent.key_file))
    bad.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    refused(bad, "no certificate", lambda: load_identity(bad, agent.key_file))
    refused(bad, "no private key", lambda: load_identity(agent.cert_file, bad))


def test_a_bundle_holds_cas_of_which_one_is_valid(ca: DevCa, agent: Leaf) -> None:
    refused(agent.cert_file, "not a CA", lambda: load_bundle(agent.cert_file))
    later = ca.certificate.not_valid_after_utc + timedelta(days=1)
    refused(ca.bundle_file, "every CA .* expired", lambda: load_bundle(ca.bundle_file, now=later))
    with ca.bundle_file.open("ab") as stream:
        stream.write(ca.bundle_file.read_bytes())
    assert len(load_bundle(ca.bundle_file).certificates) == 2


def test_key_and_certificate_belong_together(agent: Leaf, node: Leaf) -> None:
    error = refused(
        agent.cert_file,
        "does not belong",
        lambda: load_identity(agent.cert_file, node.key_file, patience_ms=50),
    )
    assert str(node.key_file) in error.message


def test_a_certificate_has_its_time(agent: Leaf) -> None:
    for at, match in (
        (agent.not_after, "expired at"),
        (agent.not_before - timedelta(seconds=1), "not valid before"),
    ):
        read = partial(load_identity, agent.cert_file, agent.key_file, now=at)
        refused(agent.cert_file, match, read)


@pytest.mark.parametrize(
    ("uris", "match"),
    [
        ([], "names 0 URIs"),
        ([OWN, OWN + "2"], "names 2 URIs"),
        (["https://example.org"], "no SPIFFE ID"),
        (["spiffe://DEV/operator"], "no SPIFFE ID"),
    ],
)
def test_a_certificate_names_one_spiffe_id(tmp_path: Path, uris: list[str], match: str) -> None:
    cert, key = write(tmp_path, ec.generate_private_key(ec.SECP256R1()), uris)
    refused(cert, match, lambda: load_identity(cert, key))


def test_a_cas_certificate_is_nobodys(tmp_path: Path) -> None:
    cert, key = write(tmp_path, ec.generate_private_key(ec.SECP256R1()), [OWN], is_ca=True)
    refused(cert, "is a CA", lambda: load_identity(cert, key))


def test_kinds_of_keys(tmp_path: Path) -> None:
    cert, key = write(tmp_path, ed25519.Ed25519PrivateKey.generate(), [OWN])
    refused(cert, "Ed25519 key, which gRPC", lambda: load_identity(cert, key))
    for wrong in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP521R1())):
        cert, key = write(tmp_path, wrong, [OWN])
        refused(cert, "not accepted", partial(load_identity, cert, key))
    for right in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        cert, key = write(tmp_path, right, [OWN])
        assert load_identity(cert, key).spiffe_id == SpiffeId.parse(OWN)


def test_a_key_with_a_passphrase(agent: Leaf) -> None:
    key = serialization.load_pem_private_key(agent.key_file.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    agent.key_file.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked))
    refused(agent.key_file, "passphrase", lambda: load_identity(agent.cert_file, agent.key_file))


@pytest.mark.parametrize(
    "given",
    [
        {"ca_file": ""},
        {"ca_file": "a", "cert_file": "b"},
        {"ca_file": "a", "key_file": "b"},
        {"ca_file": "a", "check_interval_ms": -1},
    ],
)
def test_half_a_tls_is_none(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"missing|together|at least"):
        Tls(**given)
