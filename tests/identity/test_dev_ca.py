"""The development CA: certificates that a strict verifier accepts, in files that are never torn."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from agniregistry.errors import (
    IdentityExistsError,
    IdentityInvalidError,
    IdentityMissingError,
    InvalidFieldError,
)
from agniregistry.identity import DevCa, Leaf, SpiffeId, load_identity


def now() -> datetime:
    """Not when the tests were collected: certificates begin when they are issued."""
    return datetime.now(UTC)


def leaf_of(leaf: Leaf) -> x509.Certificate:
    """The certificate in its file."""
    return x509.load_pem_x509_certificate(leaf.cert_file.read_bytes())


def policy(ca: DevCa, at: datetime) -> verification.PolicyBuilder:
    """Trust in what the bundle's file holds."""
    roots = x509.load_pem_x509_certificates(ca.bundle_file.read_bytes())
    return verification.PolicyBuilder().store(verification.Store(roots)).time(at)


def test_a_strict_verifier_accepts_it_on_both_sides(ca: DevCa) -> None:
    issued = ca.issue(
        SpiffeId.node(ca.trust_domain, "7"), ["node-7.example", "127.0.0.1", "::1", "[::2]"]
    )
    names = policy(ca, now()).build_client_verifier().verify(leaf_of(issued), []).subjects
    assert x509.UniformResourceIdentifier("spiffe://dev.agniregistry/registry/node/7") in names
    assert issued.ip_addresses == ("127.0.0.1", "::1", "::2")
    for subject in (x509.DNSName("node-7.example"),
                    *(x509.IPAddress(number) for number in leaf_of(issued).extensions
                      .get_extension_for_class(x509.SubjectAlternativeName).value
                      .get_values_for_type(x509.IPAddress))):  # fmt: skip
        chain = policy(ca, now()).build_server_verifier(subject).verify(leaf_of(issued), [])
        assert chain[-1] == ca.certificate
    other = policy(ca, now()).build_server_verifier(x509.DNSName("node-8.example"))
    with pytest.raises(verification.VerificationError):
        other.verify(leaf_of(issued), [])


def test_it_refuses_another_ca_and_another_time(ca: DevCa, other_ca: DevCa, agent: Leaf) -> None:
    for trusted, at in (
        (other_ca, now()),
        (ca, agent.not_after + timedelta(seconds=1)),
        (ca, agent.not_before - timedelta(seconds=1)),
    ):
        with pytest.raises(verification.VerificationError):
            policy(trusted, at).build_client_verifier().verify(leaf_of(agent), [])


def test_a_leaf_cannot_issue(ca: DevCa, agent: Leaf) -> None:
    found = leaf_of(agent).extensions
    constraints = found.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = found.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert set(found.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    root = ca.certificate.extensions
    assert root.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert not root.get_extension_for_class(x509.KeyUsage).value.digital_signature
    issuer = found.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert issuer == root.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def test_keys_are_their_owners_alone(ca: DevCa, agent: Leaf) -> None:
    for key in (agent.key_file, ca.folder / "ca-key.pem"):
        assert key.stat().st_mode & 0o777 == 0o600
    assert (ca.folder / ".gitignore").read_text() == "*\n"
    assert not list(ca.folder.glob(".*.new"))


def test_renewing_keeps_the_names_and_nothing_else(ca: DevCa, node: Leaf) -> None:
    renewed = ca.renew("node-1")
    assert (renewed.spiffe_id, renewed.ip_addresses) == (node.spiffe_id, node.ip_addresses)
    assert renewed.serial != node.serial
    assert renewed.not_after - renewed.not_before == node.not_after - node.not_before
    assert leaf_of(renewed).public_key() == ca.load("node-1").certificate.public_key()
    short = ca.renew("node-1", validity=timedelta(minutes=1))
    assert short.not_after < renewed.not_after
    assert ca.list() == (short,)


def test_a_leaf_never_outlives_its_root(tmp_path: Path) -> None:
    ca = DevCa.init(tmp_path / "short", validity=timedelta(hours=1))
    leaf = ca.issue(SpiffeId.operator(ca.trust_domain), validity=timedelta(days=2))
    assert leaf.not_after == ca.certificate.not_valid_after_utc
    with pytest.raises(IdentityInvalidError, match="expired"):
        DevCa.open(ca.folder, now=now() + timedelta(hours=2))


def test_a_root_is_never_overwritten(ca: DevCa) -> None:
    before = (ca.folder / "ca-key.pem").read_bytes()
    with pytest.raises(IdentityExistsError):
        DevCa.init(ca.folder, "other")
    assert (ca.folder / "ca-key.pem").read_bytes() == before
    assert DevCa.open(ca.folder).trust_domain == ca.trust_domain


def test_no_two_ids_share_a_file(ca: DevCa) -> None:
    pairs = [("a-b", "c"), ("a", "b-c"), ("c", "a-b"), ("a.b", "c"), ("a-key", "c")]
    for namespace, name in pairs:
        ca.issue(SpiffeId.agent(ca.trust_domain, namespace, name))
        ca.issue(SpiffeId.gateway(ca.trust_domain, namespace, name))
    assert len({leaf.spiffe_id for leaf in ca.list()}) == len(ca.list()) == 2 * len(pairs)
    tricky = ca.issue(SpiffeId.agent(ca.trust_domain, "default", "x-key"))
    assert ca.show(tricky.name) == tricky
    assert len(ca.list()) == 2 * len(pairs) + 1


def test_what_cannot_be_issued(ca: DevCa) -> None:
    mine = ca.trust_domain
    for spiffe_id, addresses, validity in (
        (SpiffeId.operator("elsewhere"), [], timedelta(hours=1)),
        (SpiffeId(mine, "/nobody"), [], timedelta(hours=1)),
        (SpiffeId.operator(mine), ["https://a"], timedelta(hours=1)),
        (SpiffeId.operator(mine), ["127.0.0.1:7400"], timedelta(hours=1)),
        (SpiffeId.operator(mine), [], timedelta(0)),
        (SpiffeId.operator(mine), [], timedelta(days=91)),
        (SpiffeId.agent(mine, "default", "a" * 200), [], timedelta(hours=1)),
    ):
        with pytest.raises(InvalidFieldError):
            ca.issue(spiffe_id, addresses, validity=validity)
    assert ca.list() == ()


def test_what_is_not_there(ca: DevCa, tmp_path: Path) -> None:
    for name in ("nope", "ca", "bundle", "../ca", "node-1-key"):
        with pytest.raises(IdentityMissingError):
            ca.show(name)
    with pytest.raises(IdentityMissingError, match="dev ca init"):
        DevCa.open(tmp_path)


def test_a_damaged_root_is_named(ca: DevCa, other_ca: DevCa) -> None:
    key = ca.folder / "ca-key.pem"
    key.write_bytes((other_ca.folder / "ca-key.pem").read_bytes())
    with pytest.raises(IdentityInvalidError, match=r"ca-key\.pem"):
        DevCa.open(ca.folder)
    key.write_text("nothing")
    with pytest.raises(IdentityInvalidError, match="damaged"):
        DevCa.open(ca.folder)


def test_readers_never_see_a_torn_pair(ca: DevCa, node: Leaf) -> None:
    stop, problems, seen = threading.Event(), [], set()

    def read() -> None:
        while not stop.is_set():
            try:
                seen.add(load_identity(node.cert_file, node.key_file).certificate.serial_number)
            except Exception as error:  # noqa: BLE001 - judged below
                problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    serials = {int(ca.renew("node-1").serial, 16) for _ in range(40)}
    stop.set()
    reader.join()
    assert problems == []
    assert seen <= serials | {int(node.serial, 16)}
    assert len(seen) > 1
