"""discover, explain and watch: what people and scripts are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from agniregistry import Capacity, Key, Spec
from agniregistry.testing import FakeClock, FakeRegistry

Run = Callable[..., Result]
Parsed = Callable[[Result], Any]


@pytest.fixture(autouse=True)
def two_gateways(registry: FakeRegistry[FakeClock]) -> None:
    """One in eu with a lease, one in us without."""
    room = Capacity(cpu=4, bandwidth=100, memory=1024, storage=1024)
    for name, region, ttl_ms in (("eu.example", "eu", 30_000), ("us.example", "us", 0)):
        spec = Spec(region=region, domain=name, ip="192.0.2.1", port=4000, capacity=room)
        registry.put(Key.gateway(), spec, ttl_ms=ttl_ms)


def test_the_preferred_region_comes_first(run: Run, parsed: Parsed) -> None:
    found = parsed(run("discover", "gateways", "--prefer", "us", "-o", "json"))
    assert [each["instance"]["region"] for each in found["candidates"]] == ["us", "eu"]
    assert found["matched"] == 2
    assert found["candidates"][0]["score"]["region_match"] == 1
    table = run("discover", "gateways", "--prefer", "us").stdout.splitlines()
    assert table[0].split()[:3] == ["#", "NAME", "REGION"]
    assert table[1].split()[:3] == ["1", "us.example", "us"]
    assert run("discover", "gateway", "-p", "us", "-o", "name", "--limit", "1").stdout == (
        "gateway/us.example\n"
    )


def test_finding_nothing_has_an_exit_code_and_a_hint(run: Run) -> None:
    result = run("discover", "gateways", "--region", "mars")
    assert result.exit_code == 3
    assert "--explain" in result.stderr
    explained = run("discover", "gateways", "--region", "mars", "--explain")
    assert explained.exit_code == 3
    assert "eu.example" in explained.stdout


def test_explain_of_a_record_that_is_answered(run: Run, parsed: Parsed) -> None:
    result = run("explain", "gateway", "eu.example", "--prefer", "eu")
    assert "gateway/eu.example is answered: place 1 of 2 that match" in result.stdout
    plain = parsed(run("explain", "gateway/eu.example", "-o", "json"))
    assert plain["answered"] is True


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--region", "us"), "region"),
        (("--label", "tier=gold"), "labels"),
        (("--min-cpu", "64"), "capacity"),
        (("--min-free-cpu", "64"), "free_capacity"),
    ],
)
def test_explain_of_a_record_that_is_left_out(
    run: Run, parsed: Parsed, words: tuple[str, ...], reason: str
) -> None:
    result = run("explain", "gateway", "eu.example", *words)
    assert result.exit_code == 0
    assert f"gateway/eu.example is not answered: {reason}" in result.stdout
    assert "try: " in result.stderr
    plain = parsed(run("explain", "gateway", "eu.example", *words, "-o", "json"))
    assert (plain["answered"], plain["reason"]) == (False, reason)


def test_explain_of_a_record_that_is_not_there(run: Run) -> None:
    result = run("explain", "gateway", "nope")
    assert result.exit_code == 3
    assert "not_registered" in result.stdout


def test_watch_tells_each_change_once(run: Run) -> None:
    result = run("watch", "--current", "--count", "2")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["TIME", "CHANGE", "RECORD", "REGION", "ADDRESS", "REV"]
    assert [line[1:4] for line in lines[1:]] == [
        ["is", "gateway/eu.example", "eu"],
        ["is", "gateway/us.example", "us"],
    ]


def test_watch_resumes_from_a_token(run: Run, registry: FakeRegistry[FakeClock]) -> None:
    first = run("watch", "-o", "json", "--for", "300ms").stdout.splitlines()
    token = json.loads(first[0])["resume_token"]
    registry.clock.advance(31_000)
    registry.deregister(Key.gateway("us.example"))
    result = run("watch", "-o", "json", "--count", "2", "--resume-token", token)
    changes = [json.loads(line) for line in result.stdout.splitlines()]
    told = [(each["type"], each["key"]["name"]) for each in changes if each["event"] == "change"]
    assert told == [("expired", "eu.example"), ("deregistered", "us.example")]
    assert run("watch", "--resume-token", "?").exit_code == 2


def test_watch_ends_in_time(run: Run) -> None:
    assert run("watch", "--for", "100ms").exit_code == 0


def test_watching_a_list_draws_it_again_until_it_is_interrupted(
    run: Run, registry: FakeRegistry[FakeClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt
        registry.deregister(Key.gateway("us.example"))

    monkeypatch.setattr("agniregistry.cli.output.time.sleep", pause)
    result = run("list", "--watch", "--interval", "3s")
    assert result.exit_code == 0
    assert pauses == [3.0, 3.0]
    assert result.stdout.count("eu.example:4000") == 2
    assert result.stdout.count("us.example:4000") == 1
