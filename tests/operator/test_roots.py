"""A root whose Secret was lost and made anew: noticed, and trusted beside the one known so far."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_plan import settled, wanted

from agniregistry_operator import reading
from agniregistry_operator.identity import Identity, Issued, is_another
from agniregistry_operator.model.actions import ApplyChild
from agniregistry_operator.planning.planner import plan

BEGINS = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def root(days: int) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        x509.Name([]), x509.Name([]), key.public_key(), 1, BEGINS, BEGINS + dt.timedelta(days)
    )
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def certificate(days: int) -> dict[str, Any]:
    ends = (BEGINS + dt.timedelta(days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"metadata": {"name": "web-ca-1"}, "status": {"notAfter": ends}}


def test_a_root_that_was_made_anew_is_noticed() -> None:
    known = root(10)
    assert not is_another(known, reading.root_ends([certificate(10)], wanted())[1])
    assert is_another(known, reading.root_ends([certificate(11)], wanted())[1])
    both = reading.roots({"root-1.crt": known}, {1: root(11)})[1]
    assert not is_another(both, reading.root_ends([certificate(11)], wanted())[1])
    node = {"metadata": {"name": "web-1"}, "status": certificate(1)["status"]}
    assert reading.root_ends([node], wanted()) == {}


def test_the_operator_asks_again_who_issues_and_not_all_the_time(tmp_path: Any) -> None:
    identity = Identity(tmp_path)
    identity.issued[1] = Issued(b"", b"", "a", 100.0, 200.0)
    identity.doubt(1)
    assert identity.good(50.0) == frozenset()
    identity.issued[1] = Issued(b"", b"", "a", 100.0, 200.0)
    identity.doubt(1)
    assert identity.good(50.0) == {1}


def test_both_roots_are_trusted() -> None:
    old, new = root(10), root(11)
    assert reading.roots({"root-1.crt": old, "ca.crt": old}, {1: old}) == {1: old}
    found = reading.roots({"root-1.crt": old}, {0: "x", 1: new})
    assert found == {1: old + new}
    assert reading.roots({"root-1.crt": old + new}, {1: new}) == found
    cluster = settled()
    picture = replace(cluster.observe(), roots={1: "root 1\nroot 1 made anew\n"})
    made = plan(picture, cluster.desired, cluster.now)
    applied = {action.name: action for action in made.actions if isinstance(action, ApplyChild)}
    assert applied["web-trust"].manifest["data"]["ca.crt"] == "root 1\nroot 1 made anew\n"


async def test_the_operator_shows_what_nodes_trust_until_they_know_the_new_root(
    tmp_path: Any,
) -> None:
    identity = Identity(tmp_path)
    old = Issued(b"old", b"key", "root 1", 0.0, time.time() + 3600)
    new = Issued(b"new", b"key", "another", 1.0, time.time() + 3600, former=old)
    identity.issued[1] = new
    assert identity.files(1, "both") is not None
    assert (tmp_path / "tls.crt").read_bytes() == b"old"
    new.taken_at -= 121
    assert identity.files(1, "both") is not None
    assert (tmp_path / "tls.crt").read_bytes() == b"new"
