"""What `register -f` accepts: the HTTP body of a registration, as JSON or YAML, one or several.

The seed's gateway message is accepted as it stands. Unknown fields are refused by name: a
misspelt field must not be dropped silently.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agniregistry import types as t
from agniregistry.cli.exits import CliError, Exit, not_found, usage_error

_TEXTS = ("region", "ip", "domain", "owner", "gateway")
_SPEC = (*_TEXTS, "port", "capacity", "labels", "public_key", "payload")
_AROUND = ("namespace", "kind", "name", "ttl_ms", "incarnation", "expected_revision")
_PREFIXED = ("ip", "domain", "port")
_AMOUNTS = ("cpu", "bandwidth", "memory", "storage")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One registration of a file."""

    key: t.Key
    spec: t.Spec
    ttl_ms: int | None = None
    incarnation: int | None = None
    expected_revision: int | None = None


def read_file(name: str, kind: t.Kind | None, namespace: str) -> list[Wanted]:
    """The registrations of a file; "-" is stdin."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise not_found(f"there is no file {name}") from error
    except UnicodeDecodeError as error:
        raise usage_error(f"{name} is not UTF-8 text") from error
    found = []
    documents = list(_documents(name, text))
    for number, document in enumerate(documents, 1):
        where = name if len(documents) == 1 else f"{name}, record {number}"
        found.append(_wanted(where, document, kind, namespace))
    if not found:
        raise usage_error(f"{name} is empty", "it should hold a record as JSON or YAML")
    return found


def _documents(name: str, text: str) -> Iterator[Any]:
    """JSON first, since YAML reads numbers and duplicates more loosely."""
    try:
        contents = [json.loads(text)]
    except ValueError:
        import yaml

        try:
            contents = [each for each in yaml.safe_load_all(text) if each is not None]
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f" in line {mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error)
            raise usage_error(f"{name} is neither JSON nor YAML: {problem}{line}") from error
    for content in contents:
        yield from content if isinstance(content, list) else [content]


def _wanted(where: str, body: Any, kind: t.Kind | None, namespace: str) -> Wanted:
    if not isinstance(body, Mapping):
        raise usage_error(f"{where}: a record is an object with fields, not {_type(body)}")
    fields = _plain_names(where, {str(name): value for name, value in body.items()})
    kind = _kind(where, body, kind)
    texts = {name: _text(where, name, fields[name]) for name in _TEXTS if name in fields}
    spec = t.Spec(
        **texts,
        port=_number(where, "port", fields.get("port", 0)),
        capacity=_capacity(where, fields.get("capacity")),
        labels=_labels(where, fields.get("labels")),
        public_key=_bytes(where, "public_key", fields.get("public_key", "")),
        payload=_bytes(where, "payload", fields.get("payload", "")),
    )
    key = t.Key(
        kind,
        _text(where, "name", fields.get("name", "")),
        _text(where, "namespace", fields.get("namespace", "")) or namespace,
    )
    numbers = {
        name: _number(where, name, fields[name])
        for name in ("ttl_ms", "incarnation", "expected_revision")
        if fields.get(name) is not None
    }
    return Wanted(key, spec, **numbers)


def _plain_names(where: str, body: dict[str, Any]) -> dict[str, Any]:
    """gateway_ip and its like under their plain names; unknown fields refused."""
    fields: dict[str, Any] = {}
    for name, value in body.items():
        plain = name.removeprefix("gateway_")
        plain = plain if plain != name and plain in _PREFIXED else name
        if plain not in _SPEC and plain not in _AROUND:
            raise _refused(where, name, "is unknown", f"known: {', '.join((*_SPEC, *_AROUND))}")
        if plain in fields:
            raise _refused(where, name, f"is given twice, also as {plain}")
        fields[plain] = value
    return fields


def _kind(where: str, body: Mapping[Any, Any], given: t.Kind | None) -> t.Kind:
    said = body.get("kind")
    if said is not None and said not in [kind.value for kind in t.Kind]:
        raise _refused(where, "kind", f"must be gateway or agent, not {said!r}")
    if said and given and said != given.value:
        raise _refused(where, "kind", f"is {said}, but the command says {given.value}")
    if given or said:
        return given or t.Kind(str(said))
    if any(f"gateway_{name}" in body for name in _PREFIXED):
        return t.Kind.GATEWAY
    raise _refused(where, "kind", "is missing", "add it, or say agnictl register gateway -f ...")


def _text(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _refused(where, name, f"must be text, not {_type(value)}")
    return value


def _number(where: str, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refused(where, name, f"must be a whole number, not {_type(value)}")
    return value


def _capacity(where: str, value: Any) -> t.Capacity | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise _refused(where, "capacity", f"must hold {', '.join(_AMOUNTS)}, not {_type(value)}")
    for name, number in value.items():
        if name not in _AMOUNTS:
            raise _refused(where, f"capacity.{name}", f"is unknown; use {', '.join(_AMOUNTS)}")
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise _refused(where, f"capacity.{name}", f"must be a number, not {_type(number)}")
    return t.Capacity(**{str(name): float(number) for name, number in value.items()})


def _labels(where: str, value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _refused(where, "labels", f"must map keys to values, not {_type(value)}")
    return {str(key): _text(where, f"labels.{key}", content) for key, content in value.items()}


def _bytes(where: str, name: str, value: Any) -> bytes:
    try:
        return base64.b64decode(_text(where, name, value), validate=True)
    except binascii.Error as error:
        raise _refused(where, name, "must be base64") from error


def _refused(where: str, field: str, what: str, remedy: str = "") -> CliError:
    message = f"{what} (in {where})"
    return CliError(message, remedy, Exit.USAGE, "INVALID_FIELD", field=field)


def _type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "nothing" if value is None else names.get(type(value), "a number")
