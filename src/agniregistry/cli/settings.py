"""Which registry agnictl talks to: flags, then environment, then the chosen context, then defaults.

The file (~/.config/agniregistry/config.yaml, or AGNICTL_CONFIG) is for people to read and edit:

    current: home
    contexts:
      home: {address: 127.0.0.1:7400, namespace: default, timeout: 10s}
      safe: {address: registry.example:7400, ca: bundle.pem, cert: me.pem, key: me-key.pem}

Paths in it start where it lies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agniregistry.cli.exits import not_found, usage_error
from agniregistry.config import DEFAULT_TARGET, RetryPolicy, Timeout
from agniregistry.identity import Tls

TLS_FIELDS = ("ca", "cert", "key")
"""The files of TLS: as flags, in contexts, and with AGNI_ before them in the environment."""

CONFIG_FIELDS = ("address", "namespace", "timeout", *TLS_FIELDS)
"""What a context may say."""

DEFAULT_TIMEOUT_MS = 10_000
"""How long a command waits for the registry, in milliseconds."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_duration_ms(text: str) -> int:
    """Reads "90s", "1.5m", "250ms" as milliseconds; "0" needs no unit. ValueError else."""
    if text == "0":
        return 0
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is not a time; give a number with its unit, such as 30s or 5m")
    return round(float(match[1]) * _UNIT_MS[match[2]])


def config_path() -> Path:
    """Where contexts are kept."""
    if explicit := os.environ.get("AGNICTL_CONFIG"):
        return Path(explicit)
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "agniregistry" / "config.yaml"


@dataclass(slots=True)
class ContextFile:
    """The contexts of the configuration file."""

    path: Path
    """Where they are kept."""
    current: str = ""
    """The one that is used when none is named."""
    contexts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Each one's address, namespace, timeout and files of TLS."""

    @classmethod
    def load(cls, path: Path | None = None) -> ContextFile:
        """Reads the file; one that isn't there has no contexts."""
        import yaml

        path = path or config_path()
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(path)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = str(error).splitlines()[0]
            raise usage_error(f"{path} can't be read: {reason}", "correct or remove it") from error
        return cls(path, *_checked(path, {} if content is None else content))

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        import yaml

        self.path.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, object] = {"current": self.current} if self.current else {}
        content["contexts"] = self.contexts
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        fresh.replace(self.path)

    def need(self, name: str) -> dict[str, str]:
        """A context that must exist."""
        if name not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise not_found(
                f"there is no context '{name}' in {self.path} (known: {known})",
                f"agnictl context set {name} --address HOST:PORT",
            )
        return self.contexts[name]


def _checked(path: Path, content: Any) -> tuple[str, dict[str, dict[str, str]]]:
    """The file's content, after each fault in it would have been named."""

    def refuse(what: str) -> Exception:
        return usage_error(f"{path}: {what}", "correct it, or write it with agnictl context set")

    if not isinstance(content, Mapping):
        raise refuse("must hold 'current' and 'contexts'")
    if unknown := sorted(str(name) for name in set(content) - {"current", "contexts"}):
        raise refuse(f"'{unknown[0]}' is unknown; it may hold 'current' and 'contexts'")
    contexts = content.get("contexts") or {}
    if not isinstance(contexts, Mapping):
        raise refuse("'contexts' must map names to settings")
    checked: dict[str, dict[str, str]] = {}
    for name, fields in contexts.items():
        if not isinstance(fields, Mapping):
            raise refuse(f"contexts.{name} must hold {', '.join(CONFIG_FIELDS)}")
        for key in fields:
            if key not in CONFIG_FIELDS:
                raise refuse(f"contexts.{name}.{key} is unknown; use {', '.join(CONFIG_FIELDS)}")
        checked[str(name)] = {str(key): str(value) for key, value in fields.items()}
    return str(content.get("current") or ""), checked


@dataclass(slots=True)
class Settings:
    """What the flags said; the rest is looked up when it is needed."""

    address: str = ""
    context: str = ""
    namespace: str = ""
    timeout_ms: int | None = None
    output: str = "table"
    ca: str = ""
    cert: str = ""
    key: str = ""
    connect_with: Callable[[Settings], Any] | None = None
    """Makes the client; tests put their own registry here."""

    def where(self) -> tuple[str, str]:
        """The address in use, and what it was taken from."""
        if self.address:
            return self.address, "--address"
        if self.context:
            return self._context_address(self.context), f"context {self.context}"
        if address := os.environ.get("AGNI_ADDRESS"):
            return address, "AGNI_ADDRESS"
        if name := self.context_name():
            return self._context_address(name), f"context {name}"
        return DEFAULT_TARGET, "the default"

    def context_name(self) -> str:
        """The context in use; empty when there is none."""
        return self.context or os.environ.get("AGNICTL_CONTEXT") or ContextFile.load().current

    def namespace_or(self, fallback: str = "default") -> str:
        """The namespace in use."""
        return self.namespace or self._from_context("namespace") or fallback

    def wait_ms(self) -> int:
        """How long a call may take, in milliseconds."""
        if self.timeout_ms is not None:
            return self.timeout_ms
        if text := self._from_context("timeout"):
            try:
                return max(1, parse_duration_ms(text))
            except ValueError as error:
                name = self.context_name()
                raise usage_error(f"context {name}: timeout: {error}") from error
        return DEFAULT_TIMEOUT_MS

    def connect(self) -> Any:
        """A client of the registry in use; a context manager."""
        if self.connect_with is not None:
            return self.connect_with(self)
        # gRPC's own log lines are no answers to a person; and what reads files needs no gRPC.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from agniregistry.client import Client

        wait_ms = self.wait_ms()
        timeout = Timeout(total_ms=wait_ms, attempt_ms=min(wait_ms, 5_000))
        # A person who waits wants to hear soon that nobody is there.
        retry = RetryPolicy(max_attempts=3)
        return Client(self.where()[0], timeout=timeout, retry=retry, tls=self.tls())

    def at(self, address: str, timeout_ms: int) -> Settings:
        """The same registry at another of its nodes, with the same files of TLS."""
        ca, cert, key = (self._tls_file(name) for name in TLS_FIELDS)
        return replace(self, address=address, timeout_ms=timeout_ms, ca=ca, cert=cert, key=key)

    def tls(self) -> Tls | None:
        """The files of TLS in use; None for plaintext."""
        ca, cert, key = (self._tls_file(name) for name in TLS_FIELDS)
        if not (ca or cert or key):
            return None
        if not ca:
            raise usage_error("nothing says whom to trust", "give the trust bundle with --ca")
        if bool(cert) != bool(key):
            missing = "--key" if cert else "--cert"
            raise usage_error("a certificate and its key belong together", f"give {missing} too")
        return Tls(ca, cert, key)

    def _tls_file(self, name: str) -> str:
        """One of the files: where the address comes from there, too, but flags win.

        A context's files are for its own address. Where only the address was given anew, in a
        flag or in the environment, the current context's would prove oneself to a stranger.
        """
        if flag := str(getattr(self, name)):
            return flag
        if self.context:
            return self._context_file(self.context, name)
        if found := os.environ.get(f"AGNI_{name.upper()}"):
            return found
        if self.address or os.environ.get("AGNI_ADDRESS"):
            return ""
        context = self.context_name()
        return self._context_file(context, name) if context else ""

    @staticmethod
    def _context_file(context: str, name: str) -> str:
        file = ContextFile.load()
        text = file.need(context).get(name, "")
        return str(file.path.parent / Path(text).expanduser()) if text else ""

    def _context_address(self, name: str) -> str:
        return ContextFile.load().need(name).get("address", DEFAULT_TARGET)

    def _from_context(self, key: str) -> str:
        name = self.context_name()
        return ContextFile.load().need(name).get(key, "") if name else ""
