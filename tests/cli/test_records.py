"""register, get, list, update, deregister, renew: what they print and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from agniregistry.errors import OutcomeUnknownError
from agniregistry.testing import FakeClock, FakeRegistry

Run = Callable[..., Result]
Parsed = Callable[[Result], Any]


def edge(run: Run, name: str = "a.example", *more: str) -> Result:
    """Registers a gateway."""
    words = ("register", "gateway", "--domain", name, "--region", "eu", "--ip", "192.0.2.7")
    return run(*words, "--port", "4000", "--cpu", "8", "--memory", "16384", *more)


def test_the_roadmaps_message_registers_as_it_stands(
    run: Run, parsed: Parsed, roadmap: Path
) -> None:
    result = run("register", "-f", str(roadmap))
    assert result.stdout == "gateway/global.gateway.agnistack.online registered at revision 1\n"
    stored = parsed(run("get", "gateway", "global.gateway.agnistack.online", "-o", "json"))
    for name, value in json.loads(roadmap.read_text()).items():
        assert stored[name] == value


def test_registering_reads_stdin_yaml_lists_and_documents(run: Run, parsed: Parsed) -> None:
    text = """
- {kind: agent, name: one, region: eu, ip: 10.0.0.1, port: 1}
- {kind: agent, name: two, region: eu, ip: 10.0.0.2, port: 2, ttl_ms: 30000}
---
{kind: agent, name: three, region: us, ip: 10.0.0.3, port: 3, labels: {tier: gold}}
"""
    assert run("register", "-f", "-", stdin=text).exit_code == 0
    listed = parsed(run("list", "agents", "-o", "json"))["instances"]
    assert [each["name"] for each in listed] == ["one", "three", "two"]
    assert listed[1]["labels"] == {"tier": "gold"}
    assert listed[2]["lease_remaining_ms"] == 30_000


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"gateway_prot": 1}, "gateway_prot"),
        ({"gateway_port": "4000"}, "gateway_port"),
        ({"capacity": {"cpus": 1}}, "capacity.cpus"),
        ({"capacity": {"cpu": "1"}}, "capacity.cpu"),
        ({"ip": "1.2.3.4"}, "ip"),
        ({"kind": "router"}, "kind"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"payload": "not base64!"}, "payload"),
        ({"region": 5}, "region"),
    ],
)
def test_a_files_fault_is_named_by_its_field(
    run: Run, roadmap: Path, change: dict[str, object], field: str
) -> None:
    roadmap.write_text(json.dumps({**json.loads(roadmap.read_text()), **change}))
    result = run("register", "-f", str(roadmap))
    assert result.exit_code == 2
    plain = field.removeprefix("gateway_") if field == "gateway_port" else field
    assert plain in result.stderr
    assert str(roadmap) in result.stderr
    assert run("list", "-o", "name").stdout == ""


def test_a_file_that_is_neither_json_nor_yaml_is_refused(run: Run) -> None:
    result = run("register", "-f", "-", stdin="{a: [")
    assert result.exit_code == 2
    assert "neither JSON nor YAML" in result.stderr


def test_a_missing_file_is_not_found(run: Run) -> None:
    assert run("register", "-f", "nothing.json").exit_code == 3


def test_a_table_for_people(run: Run, registry: FakeRegistry[FakeClock]) -> None:
    edge(run, "a.example", "--ttl", "30s")
    run("register", "agent", "worker-1", "--region", "eu", "--ip", "10.0.0.1", "--port", "9000")
    registry.clock.advance(5_000)
    lines = [line.split() for line in run("list").stdout.splitlines()]
    assert lines[0] == ["KIND", "NAME", "REGION", "ADDRESS", "STATUS", "LEASE", "AGE", "REV"]
    assert lines[1][:6] == ["agent", "worker-1", "eu", "10.0.0.1:9000", "alive", "none"]
    assert lines[2][:6] == ["gateway", "a.example", "eu", "a.example:4000", "alive", "25s/30s"]
    assert "KIND" not in run("list", "gateways").stdout
    wide = run("list", "gateways", "-o", "wide").stdout
    assert "192.0.2.7" in wide
    assert "8 cpu, 0 Mbit/s, 16.0 GiB, 0 B" in wide


def test_pipes_get_no_escape_codes_and_no_cut_values(run: Run) -> None:
    name = "a-very-long-name-" + "x" * 200
    run("register", "agent", name, "--region", "eu", "--ip", "10.0.0.1", "--port", "9000")
    listed = run("list").stdout
    assert name in listed
    assert "\x1b" not in listed
    assert all(line == line.rstrip() for line in listed.splitlines())


def test_an_empty_list_says_what_to_do_and_is_no_failure(run: Run) -> None:
    result = run("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "announce one with agnictl register" in result.stderr
    edge(run)
    filtered = run("list", "--region", "mars")
    assert "leave out a filter" in filtered.stderr


def test_list_filters_and_limits(run: Run) -> None:
    for name in ("a.example", "b.example", "c.example"):
        edge(run, name, "--label", f"first={name[0]}")
    assert run("list", "-o", "name", "-l", "first=b").stdout == "gateway/b.example\n"
    assert run("list", "-o", "name", "--name-prefix", "c").stdout == "gateway/c.example\n"
    assert run("list", "-o", "name", "--min-cpu", "9").stdout == ""
    assert len(run("list", "-o", "name", "--limit", "2").stdout.splitlines()) == 2
    assert run("list", "-o", "name", "-n", "other").stdout == ""
    assert len(run("list", "-o", "name", "-A").stdout.splitlines()) == 3


def test_names_feed_other_commands(run: Run) -> None:
    edge(run, "a.example")
    edge(run, "b.example")
    names = run("list", "-o", "name").stdout.split()
    assert run("get", *names, "-o", "name").stdout.split() == names
    assert run("deregister", *names).exit_code == 0
    assert run("list", "-o", "name").stdout == ""


def test_yaml_says_the_same_as_json(run: Run, parsed: Parsed) -> None:
    edge(run)
    from_yaml = yaml.safe_load(run("get", "gateway", "a.example", "-o", "yaml").stdout)
    assert from_yaml == parsed(run("get", "gateway", "a.example", "-o", "json"))


def test_an_unknown_record_is_not_found_for_people_and_for_scripts(run: Run) -> None:
    result = run("get", "gateway", "nope")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: ")
    assert "try: " in result.stderr
    told = json.loads(run("get", "gateway", "nope", "-o", "json").stderr)["error"]
    assert (told["reason"], told["exit_code"]) == ("NOT_FOUND", 3)


def test_conflicts_have_a_code_of_their_own(run: Run) -> None:
    edge(run, "a.example", "--incarnation", "5")
    assert edge(run, "a.example", "--owner", "x", "--create-only").exit_code == 4
    assert edge(run, "a.example", "--owner", "x", "--expected-revision", "99").exit_code == 4
    stale = edge(run, "a.example", "--incarnation", "4")
    assert stale.exit_code == 4
    assert "leave out --incarnation" in stale.stderr


def test_a_refused_field_is_named(run: Run) -> None:
    result = edge(run, "a.example", "--port", "70000")
    assert result.exit_code == 2
    assert "port" in result.stderr


def test_update_changes_what_is_given_and_merges_labels(run: Run, parsed: Parsed) -> None:
    edge(run, "a.example", "-l", "tier=gold", "-l", "canary=yes")
    words = ("update", "gateway", "a.example")
    assert run(*words, "--cpu", "16", "-l", "zone=b", "--unlabel", "canary").exit_code == 0
    stored = parsed(run("get", "gateway", "a.example", "-o", "json"))
    assert stored["labels"] == {"tier": "gold", "zone": "b"}
    assert stored["capacity"]["cpu"] == 16
    assert stored["capacity"]["memory"] == 16384
    assert run(*words).exit_code == 2
    assert run("update", "gateway", "nope", "--cpu", "1").exit_code == 3


def test_deregistering_twice_is_not_found_unless_told_otherwise(run: Run) -> None:
    edge(run)
    assert run("deregister", "gateway", "a.example").stdout == "gateway/a.example deregistered\n"
    assert run("deregister", "gateway", "a.example").exit_code == 3
    assert run("deregister", "gateway", "a.example", "--ignore-missing").exit_code == 0


def test_a_removal_whose_answer_was_lost_is_no_failure(
    run: Run, registry: FakeRegistry[FakeClock]
) -> None:
    registry.fail_next(OutcomeUnknownError("the answer was lost"))
    result = run("deregister", "gateway", "a.example")
    assert result.exit_code == 0
    assert "an answer was lost" in result.stderr


def test_draining_is_shown(run: Run) -> None:
    edge(run)
    result = run("deregister", "gateway/a.example", "--drain", "5m", "--successor", "b.example")
    assert result.stdout == "gateway/a.example drains for 5m, then goes\n"
    assert "draining" in run("list").stdout
    assert "then b.example" in run("get", "gateway", "a.example").stdout


def test_renewing_by_name_and_by_id(
    run: Run, parsed: Parsed, registry: FakeRegistry[FakeClock]
) -> None:
    answer = parsed(edge(run, "a.example", "--ttl", "30s", "-o", "json"))
    registry.clock.advance(20_000)
    assert run("renew", "gateway", "a.example", "--free-cpu", "2").exit_code == 0
    stored = parsed(run("get", "gateway", "a.example", "-o", "json"))
    assert stored["lease_remaining_ms"] == 30_000
    assert stored["load"]["free"]["cpu"] == 2
    assert stored["load"]["free"]["memory"] == 16384, "what isn't given counts as before"
    assert run("renew", answer["lease_id"]).exit_code == 0
    assert run("renew", answer["lease_id"], "--free-cpu", "2").exit_code == 2
    registry.clock.advance(31_000)
    lost = run("renew", answer["lease_id"])
    assert lost.exit_code == 3
    assert "register again" in lost.stderr


def test_a_record_without_a_lease_cannot_be_renewed(run: Run) -> None:
    edge(run)
    assert run("renew", "gateway", "a.example").exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("get",),
        ("get", "gateway"),
        ("get", "something"),
        ("list", "routers"),
        ("register",),
        ("register", "gateway", "-f", "x", "--cpu", "1"),
        ("list", "--interval", "5"),
        ("deregister", "gateway", "a", "--successor", "b"),
        ("lits",),
    ],
)
def test_wrong_usage_ends_with_2_and_a_remedy(run: Run, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "try: " in result.stderr


def test_a_batch_tells_what_was_done_and_what_was_refused(run: Run) -> None:
    text = json.dumps([
        {"kind": "agent", "name": "good", "region": "eu", "ip": "10.0.0.1", "port": 1},
        {"kind": "agent", "name": "bad", "region": "eu", "ip": "10.0.0.300", "port": 1},
    ])  # fmt: skip
    result = run("register", "-f", "-", stdin=text)
    assert result.exit_code == 2
    assert "agent/good registered" in result.stdout
    assert "agent/bad was refused" in result.stderr
