"""Contexts, precedence, exit codes, help, completion: what agnictl says about itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import Result
from loopback_ports import free_port

from agniregistry.cli import agnictl
from agniregistry.cli.exits import Exit
from agniregistry.cli.settings import Settings, config_path, parse_duration_ms
from agniregistry.testing import FakeClock, FakeRegistry

Run = Callable[..., Result]
Parsed = Callable[[Result], Any]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command's words."""
    found = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        words = (*path, name)
        found.append(words)
        if isinstance(command, click.Group):
            found += commands(command, words)
    return found


def test_alone_it_says_where_one_stands_and_where_to_go(alone: Run) -> None:
    result = alone()
    assert result.exit_code == 0
    assert "127.0.0.1:7400 (the default)" in result.stdout
    assert "agnictl discover" in result.stdout


@pytest.mark.parametrize("words", commands(agnictl), ids=" ".join)
def test_every_command_has_help_with_an_example(alone: Run, words: tuple[str, ...]) -> None:
    result = alone(*words, "--help")
    assert result.exit_code == 0
    assert "agnictl " + " ".join(words) in result.stdout
    assert "Example" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 100


def test_the_help_lists_every_exit_code(alone: Run) -> None:
    text = alone("--help").stdout
    assert all(f"  {int(code)}  " in text for code in Exit)


def test_the_documentation_knows_every_command_and_exit_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "agnictl.md").read_text()
    assert [" ".join(words) for words in commands(agnictl) if " ".join(words) not in page] == []
    assert all(f"| {int(code)} |" in page for code in Exit)


def test_nobody_answers(alone: Run) -> None:
    address = f"127.0.0.1:{free_port()}"
    result = alone("list", "--address", address, "--timeout", "500ms")
    assert result.exit_code == 5
    assert result.stderr.startswith(f"error: no answer from {address}")
    assert "Traceback" not in result.stderr


def test_contexts_are_kept_chosen_and_removed(alone: Run, parsed: Parsed) -> None:
    assert "no contexts" in alone("context", "list").stderr
    assert alone("context", "set", "home").exit_code == 2
    assert alone("context", "set", "home", "--address", "127.0.0.1:1", "--use").exit_code == 0
    words = ("--address", "registry.example:7400", "--namespace", "web", "--timeout", "30s")
    assert alone("context", "set", "prod", *words).exit_code == 0
    assert yaml.safe_load(config_path().read_text()) == {
        "current": "home",
        "contexts": {
            "home": {"address": "127.0.0.1:1"},
            "prod": {"address": "registry.example:7400", "namespace": "web", "timeout": "30s"},
        },
    }
    assert alone("context", "use", "prod").exit_code == 0
    listed = parsed(alone("context", "list", "-o", "json"))
    assert [each["name"] for each in listed if each["current"]] == ["prod"]
    assert alone("context", "use", "nope").exit_code == 3
    assert alone("context", "remove", "prod").exit_code == 0
    assert alone("context", "remove", "prod").exit_code == 3
    assert "the default" in alone().stdout


def test_flags_win_over_environment_over_contexts(
    alone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        alone("context", "set", name, "--address", f"{name}:1", "--use")
    assert Settings().where()[0] == "three:1"
    monkeypatch.setenv("AGNICTL_CONTEXT", "two")
    assert Settings().where()[0] == "two:1"
    monkeypatch.setenv("AGNI_ADDRESS", "environment:1")
    assert Settings().where()[0] == "environment:1"
    assert Settings(context="one").where()[0] == "one:1"
    assert Settings(context="one", address="flag:1").where()[0] == "flag:1"


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "contexts: 5",
        "contexts: {a: 5}",
        "contexts: {a: {adress: x}}",
        "oops: 1",
        "a: [",
        "\x00",
    ],
)
def test_a_faulty_config_file_is_named(alone: Run, content: str) -> None:
    config_path().parent.mkdir(parents=True)
    config_path().write_text(content)
    result = alone("context", "list")
    assert result.exit_code == 2
    assert str(config_path()) in result.stderr


def test_the_namespace_of_a_context_is_used(
    run: Run, registry: FakeRegistry[FakeClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    del registry
    run("context", "set", "web", "--address", "x:1", "--namespace", "web", "--use")
    words = ("agent", "one", "--region", "eu", "--ip", "10.0.0.1", "--port", "1")
    assert run("register", *words).exit_code == 0
    assert run("list", "-o", "name", "-n", "web").stdout == "agent/one\n"
    assert run("list", "-o", "name", "-n", "default").stdout == ""
    assert run("list", "-o", "name").stdout == "agent/one\n"


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("250ms", 250),
        ("1.5s", 1500),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
        ("0", 0),
    ],
)
def test_times_have_units(text: str, milliseconds: int) -> None:
    assert parse_duration_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 parsecs", "nan"])
def test_times_without_units_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_duration_ms(text)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(alone: Run, shell: str) -> None:
    result = alone("completion", shell)
    assert result.exit_code == 0
    assert "_AGNICTL_COMPLETE" in result.stdout


def test_completion_knows_commands(alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AGNICTL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "agnictl dere")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert "deregister" in alone().stdout


def test_status_and_version(run: Run, parsed: Parsed) -> None:
    assert parsed(run("status", "-o", "json"))["writable"] is True
    lines = dict(line.split(None, 1) for line in run("status").stdout.splitlines())
    assert lines["Writable"] == "yes"
    assert "PARTITION" in run("status", "--partitions").stdout
    assert parsed(run("version", "-o", "json"))["node"]
    assert run("--version").stdout.startswith("agnictl ")


def test_version_without_a_node(alone: Run) -> None:
    assert alone("version", "--address", f"127.0.0.1:{free_port()}").exit_code == 0
    assert "Node" not in alone("version", "--client").stdout


def test_a_snapshot_is_taken(run: Run, parsed: Parsed) -> None:
    assert len(parsed(run("snapshot", "take", "-o", "json"))["snapshots"]) == 1


def test_what_reads_files_loads_no_grpc() -> None:
    script = """
import sys
from agniregistry.cli import agnictl
try:
    agnictl.main(["wal", "verify", "--help"])
except SystemExit:
    print("grpc" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_an_unforeseen_fault_is_one_line(alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(_: Settings) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(Settings, "connect", explode)
    result = alone("list", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["error"]["reason"] == "INTERNAL"
