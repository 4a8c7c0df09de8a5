"""The clients behind mTLS: who gets in, what is said to who doesn't, and rotation under load."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from agniregistry import AsyncClient, Client, Key, RetryPolicy, Spec, Timeout, Tls
from agniregistry.client._target import parse_target
from agniregistry.errors import ConnectionFailedError, IdentityError, InvalidFieldError
from agniregistry.identity import DevCa, Leaf, SpiffeId
from agniregistry.testing import FakeRegistry

ONCE: dict[str, Any] = {
    "retry": RetryPolicy.never(),
    "timeout": Timeout(total_ms=5_000, attempt_ms=5_000),
}
SPEC = Spec(region="eu", domain="a.example", port=4000)


def raw(leaf: Leaf) -> grpc.ChannelCredentials:
    """A client's credentials without the checks of files."""
    return grpc.ssl_channel_credentials(
        leaf.bundle_file.read_bytes(), leaf.key_file.read_bytes(), leaf.cert_file.read_bytes()
    )


def shut_out(target: str, **more: Any) -> ConnectionFailedError:
    """The error of a client that gets no connection."""
    with Client(target, **ONCE, **more) as client, pytest.raises(ConnectionFailedError) as caught:
        client.list()
    return caught.value


def channels_of(client: Any) -> Any:
    """The channels to the client's only target."""
    return client._router.endpoints.given[0].channels


def test_the_right_certificate_gets_in(secure: Any, agent: Leaf, tls: Callable[..., Tls]) -> None:
    for target in (secure.address, f"https://{secure.address}/", f"grpcs://{secure.address}"):
        with Client(target, tls=tls(agent), **ONCE) as client:
            assert client.list().instances == ()
    assert set(secure.serials) == {agent.serial}


async def test_the_right_certificate_gets_in_async(
    secure: Any, agent: Leaf, tls: Callable[..., Tls]
) -> None:
    async with AsyncClient(secure.address, tls=tls(agent), **ONCE) as client:
        assert (await client.list()).instances == ()


def test_who_does_not_get_in(secure: Any, ca: DevCa, other_ca: DevCa, agent: Leaf) -> None:
    shut_out(secure.address)
    shut_out(secure.address, tls=Tls(agent.bundle_file))
    stranger = other_ca.issue(agent.spiffe_id)
    shut_out(secure.address, tls=Tls(agent.bundle_file, stranger.cert_file, stranger.key_file))
    past = datetime.now(UTC) - timedelta(days=2)
    expired = ca.issue(SpiffeId.operator(ca.trust_domain), now=past)
    shut_out(secure.address, credentials=raw(expired))
    with pytest.raises(IdentityError, match="expired at"):
        Client(secure.address, tls=Tls(expired.bundle_file, expired.cert_file, expired.key_file))
    assert secure.serials == []


def test_whom_a_client_does_not_trust(
    secure: Any, ca: DevCa, other_ca: DevCa, agent: Leaf, tls: Callable[..., Tls]
) -> None:
    wrong = Tls(other_ca.bundle_file, agent.cert_file, agent.key_file)
    assert shut_out(secure.address, tls=wrong).metadata["tls"] == "untrusted"
    elsewhere = f"localhost:{secure.address.rpartition(':')[2]}"
    error = shut_out(elsewhere, tls=tls(agent))
    assert error.metadata["tls"] == "hostname"
    assert "have it issued with this one" in error.message
    with Client(elsewhere, tls=tls(agent, server_name="127.0.0.1"), **ONCE) as client:
        assert client.list().instances == ()
    past = datetime.now(UTC) - timedelta(days=2)
    secure.leaf = ca.issue(secure.leaf.spiffe_id, ["127.0.0.1"], now=past)
    assert shut_out(secure.address, tls=tls(agent)).metadata["tls"] == "expired"
    with FakeRegistry() as plain, plain.serve() as address:
        assert shut_out(address, tls=tls(agent)).metadata["tls"] == "plaintext"


@pytest.mark.parametrize(
    ("text", "address", "secure"),
    [
        ("127.0.0.1:7400", "127.0.0.1:7400", None),
        ("dns:///registry.example:1", "dns:///registry.example:1", None),
        ("unix:///run/agni.sock", "unix:///run/agni.sock", None),
        ("https://registry.example", "registry.example:7400", True),
        ("HTTPS://registry.example:1/", "registry.example:1", True),
        ("grpcs://[::1]", "[::1]:7400", True),
        ("http://[::1]:1", "[::1]:1", False),
        ("grpc://a", "a:7400", False),
    ],
)
def test_targets(text: str, address: str, secure: bool | None) -> None:
    target = parse_target(text)
    assert (target.address, target.secure) == (address, secure)


@pytest.mark.parametrize(
    "text", ["https://", "https://a/b", "https://me@a", "http://a?b", "grpc:///"]
)
def test_targets_that_are_none(text: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        Client(text)
    assert caught.value.field == "target"


def test_contradictions_are_refused(agent: Leaf, tls: Callable[..., Tls]) -> None:
    for target, given, field in (
        ("https://a", {}, "tls"),
        ("http://a", {"tls": tls(agent)}, "target"),
        ("grpc://a", {"credentials": raw(agent)}, "target"),
        ("a:1", {"tls": tls(agent), "credentials": raw(agent)}, "tls"),
    ):
        with pytest.raises(InvalidFieldError) as caught:
            Client(target, **given)
        assert caught.value.field == field


def test_a_rotation_under_load_fails_no_call(
    secure: Any, ca: DevCa, agent: Leaf, tls: Callable[..., Tls], during: Any, eventually: Any
) -> None:
    with Client(secure.address, tls=tls(agent), **ONCE) as client:
        with client.watch() as watch, during(client.list) as load:
            next(watch)  # Opens the stream.
            expected = [agent.serial]
            for _ in range(4):
                expected.append(ca.renew(agent.name).serial)
                ca.renew("node-1")
                eventually(lambda: secure.serials and secure.serials[-1] == expected[-1])
            # The stream stands where it began, and still hears.
            secure.registry.put(Key.gateway(), SPEC)
            assert next(watch.changes()).record.spec == SPEC
            before = load.calls
            eventually(lambda: load.calls > before + 10)
        assert load.failures == []
        assert list(dict.fromkeys(secure.serials)) == expected
        # What nobody uses any more is closed, once the watch is gone too.
        eventually(lambda: client.list() and not channels_of(client)._retired)


async def test_a_rotation_under_load_fails_no_async_call(
    secure: Any, ca: DevCa, agent: Leaf, tls: Callable[..., Tls]
) -> None:
    async with AsyncClient(secure.address, tls=tls(agent), **ONCE) as client:
        stop = False

        async def calls() -> int:
            count = 0
            while not stop:
                await client.list()
                count += 1
            return count

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            tasks = [group.create_task(calls()) for _ in range(3)]
            expected = [agent.serial]
            async with client.watch() as watch:
                opened = asyncio.ensure_future(anext(watch))
                for _ in range(3):
                    expected.append(ca.renew(agent.name).serial)
                    while not secure.serials or secure.serials[-1] != expected[-1]:
                        await asyncio.sleep(0.01)
                await opened
                secure.registry.put(Key.gateway(), SPEC)
                assert (await anext(watch.changes())).record.spec == SPEC
            stop = True
        assert all(task.result() > 3 for task in tasks)
        assert list(dict.fromkeys(secure.serials)) == expected
        async with asyncio.timeout(10):
            while channels_of(client)._retired:
                await client.list()


def test_a_certificate_that_is_not_accepted_yet_costs_nothing(
    secure: Any, ca: DevCa, other_ca: DevCa, agent: Leaf, tls: Callable[..., Tls], eventually: Any
) -> None:
    with Client(secure.address, tls=tls(agent), **ONCE) as client:
        client.list()
        stranger = other_ca.issue(agent.spiffe_id)
        agent.key_file.write_bytes(stranger.key_file.read_bytes())
        agent.cert_file.write_bytes(stranger.cert_file.read_bytes())
        eventually(lambda: client.list() and channels_of(client)._pending is not None)
        for _ in range(50):
            client.list()
        assert set(secure.serials) == {agent.serial}
        # Now the registry trusts the other CA, too: the client goes over by itself.
        both = ca.bundle_file.read_bytes() + other_ca.bundle_file.read_bytes()
        ca.bundle_file.write_bytes(both)
        eventually(lambda: client.list() and secure.serials[-1] == stranger.serial)


def test_files_that_cannot_be_used_are_logged_once_and_left_alone(
    secure: Any, ca: DevCa, agent: Leaf, node: Leaf, tls: Callable[..., Tls],
    eventually: Any, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    kept = agent.key_file.read_bytes()
    with (
        caplog.at_level(logging.WARNING, "agniregistry.identity"),
        Client(secure.address, tls=tls(agent, check_interval_ms=0), **ONCE) as client,
    ):
        agent.key_file.write_bytes(node.key_file.read_bytes())
        for _ in range(10):
            client.list()
        assert len(caplog.records) == 1
        assert "does not belong" in caplog.text
        agent.key_file.unlink()
        client.list()
        assert "isn't there" in caplog.text
        agent.key_file.write_bytes(kept)
        renewed = ca.renew(agent.name)
        eventually(lambda: client.list() and secure.serials[-1] == renewed.serial)


def test_a_client_closed_in_the_midst_of_a_rotation_ends(
    secure: Any, ca: DevCa, agent: Leaf, tls: Callable[..., Tls]
) -> None:
    with Client(secure.address, tls=tls(agent, check_interval_ms=0), **ONCE) as client:
        client.list()
        ca.renew(agent.name)
        client.list()
    assert channels_of(client)._pending is None
