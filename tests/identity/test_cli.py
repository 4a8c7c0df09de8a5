"""agnictl: the development CA, and which files of TLS a command uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from agniregistry.cli import agnictl
from agniregistry.cli.settings import Settings, config_path
from agniregistry.errors import AgniError
from agniregistry.identity import DevCa, Leaf, Tls

NAMES = ("ADDRESS", "CA", "CERT", "KEY")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of whoever runs the tests may matter, and nothing is left behind."""
    for name in ("AGNICTL_CONTEXT", *(f"AGNI_{each}" for each in NAMES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGNICTL_CONFIG", str(tmp_path / "config" / "config.yaml"))
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> Result:
    """Runs a command line."""
    return CliRunner().invoke(agnictl, list(words))


def parsed(*words: str) -> Any:
    """What it says in JSON."""
    result = run(*words, "-o", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_from_nothing_to_certificates() -> None:
    made = run("dev", "ca", "init")
    assert (made.exit_code, "DEVELOPMENT ONLY" in made.stderr) == (0, True)
    again = parsed("dev", "ca", "init")
    assert (again["created"], again["development_only"]) == (False, True)
    node = parsed("dev", "ca", "issue", "node", "1")
    assert node["spiffe_id"] == "spiffe://dev.agniregistry/registry/node/1"
    assert (node["dns_names"], node["ip_addresses"]) == (["localhost"], ["127.0.0.1", "::1"])
    agent = parsed(
        "dev", "ca", "issue", "agent", "web/a", "--valid", "1h", "--address", "a.example"
    )
    assert agent["spiffe_id"] == "spiffe://dev.agniregistry/t/web/agent/a"
    assert agent["dns_names"] == ["a.example"]
    assert run("dev", "ca", "issue", "gateway", "b").exit_code == 0
    assert run("dev", "ca", "issue", "operator").stdout.startswith("operator is spiffe://")
    names = ["agent-a@web", "gateway-b@default", "node-1", "operator"]
    assert run("dev", "ca", "show", "-o", "name").stdout.split() == names
    assert [each["name"] for each in parsed("dev", "ca", "show")["certificates"]] == names
    assert parsed("dev", "ca", "show", "node-1") == node
    renewed = {each["name"]: each for each in parsed("dev", "ca", "renew")}
    assert list(renewed) == names
    assert renewed["node-1"]["serial"] != node["serial"]
    assert DevCa.open(Path(".agni/ca")).load("node-1").spiffe_id
    shown = run("dev", "ca", "show").stdout
    assert all(name in shown for name in names)
    assert "PRIVATE" not in shown


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("show --dir nowhere", 3, "dev ca init --dir nowhere"),
        ("show nobody", 3, "no such certificate"),
        ("renew nobody", 3, "no such certificate"),
        ("init --trust-domain other", 4, "another trust domain"),
        ("init --dir new --trust-domain Other", 2, "trust_domain"),
        ("issue node", 2, "give its name"),
        ("issue node One", 2, "no name of a node"),
        ("issue node a/b", 2, "1 to 63"),
        ("issue agent", 2, "[NAMESPACE/]NAME"),
        ("issue agent a/b/c", 2, "SPIFFE ID must not have"),
        ("issue operator me", 2, "leave out"),
        ("issue user me", 2, "operator"),
        ("issue node 1 --address 127.0.0.1:1", 2, "without scheme and port"),
        ("issue node 1 --valid 91d", 2, "90 days"),
    ],
)
def test_what_goes_wrong(words: str, code: int, said: str) -> None:
    assert run("dev", "ca", "init").exit_code == 0
    result = run("dev", "ca", *words.split())
    assert result.exit_code == code, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("new").exists()


def flags(leaf: Leaf) -> list[str]:
    """The files as flags."""
    return ["--ca", str(leaf.bundle_file), "--cert", str(leaf.cert_file),
            "--key", str(leaf.key_file)]  # fmt: skip


def test_flags_environment_and_contexts_lead_in(
    secure: Any, agent: Leaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("list", "--address", secure.address, *flags(agent)).exit_code == 0
    assert run("list", "--address", secure.address, "--timeout", "1s").exit_code == 5
    words = ("--address", f"https://{secure.address}", *flags(agent), "--use")
    assert run("context", "set", "safe", *words).exit_code == 0
    assert run("list").exit_code == 0
    assert "mTLS" in run("context", "list").stdout
    with monkeypatch.context() as patch:
        for name, value in zip(NAMES, (secure.address, *flags(agent)[1::2]), strict=True):
            patch.setenv(f"AGNI_{name}", value)
        assert Settings().where()[1] == "AGNI_ADDRESS"
        assert run("list").exit_code == 0


def test_a_contexts_files_are_for_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = config_path().parent
    folder.mkdir()
    content = {"address": "safe:1", "ca": "bundle.pem", "cert": "~/me.pem", "key": "/etc/key.pem"}
    config_path().write_text(yaml.safe_dump({"current": "safe", "contexts": {"safe": content}}))
    expected = Tls(str(folder / "bundle.pem"), str(Path.home() / "me.pem"), "/etc/key.pem")
    assert Settings().tls() == expected
    assert Settings(address="elsewhere:1").tls() is None
    assert Settings(address="elsewhere:1", context="safe").tls() == expected
    assert Settings(cert="c", key="k").tls() == Tls(expected.ca_file, "c", "k")
    monkeypatch.setenv("AGNI_CA", "other.pem")
    assert Settings(address="elsewhere:1").tls() == Tls("other.pem")
    assert Settings(context="safe").tls() == expected


@pytest.mark.parametrize("given", [{"cert": "c", "key": "k"}, {"ca": "b", "cert": "c"}])
def test_half_of_the_files_is_a_usage_error(given: dict[str, str]) -> None:
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    result = run("list", *words)
    assert result.exit_code == 2
    assert "--ca" in result.stderr or "--key" in result.stderr


def test_failures_of_tls_are_told_with_a_remedy(secure: Any, agent: Leaf, other_ca: DevCa) -> None:
    words = ["list", "--address", secure.address, "--timeout", "2s"]
    result = run(*words, *flags(agent), "--ca", str(other_ca.bundle_file))
    assert result.exit_code == 5
    assert f"error: {secure.address}: the registry's certificate is not vouched" in result.stderr
    assert "try: check that the CA file" in result.stderr
    agent.key_file.unlink()
    result = run(*words, *flags(agent), "-o", "json")
    told = json.loads(result.stderr)["error"]
    assert (result.exit_code, told["reason"]) == (3, "IDENTITY_MISSING")
    assert told["file"] == str(agent.key_file)
    assert told["remedy"] not in told["message"]


def test_identity_errors_are_agni_errors(tmp_path: Path) -> None:
    with pytest.raises(AgniError):
        DevCa.open(tmp_path / "nothing")
