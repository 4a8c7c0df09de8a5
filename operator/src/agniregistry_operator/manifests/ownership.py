"""Whether all that was applied still is the operator's, told from `managedFields`.

Whoever changes a field of an object takes it over. So a field that was applied and is no longer
the operator's was changed by somebody, and no value need be compared: the API server may write
1000m as 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agniregistry_operator import names

IGNORED = frozenset({"apiVersion", "kind"})
_NAMES = frozenset({"name", "namespace"})


def own_fields(entries: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The fields that the operator has applied, of an object's `managedFields`."""
    for entry in entries:
        is_whole = not entry.get("subresource")
        if entry.get("manager") == names.MANAGER and entry.get("operation") == "Apply" and is_whole:
            found: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return found
    return {}


def owns_all(fields: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Whether every field of a manifest is among the operator's."""
    for key, value in manifest.items():
        if key in IGNORED:
            continue
        if key == "metadata":
            value = {name: part for name, part in value.items() if name not in _NAMES}
        if not _owns(fields.get(f"f:{key}"), value):
            return False
    return True


def _owns(fields: Mapping[str, Any] | None, value: object) -> bool:
    if fields is None:
        # The API server keeps no record of what is empty.
        return value in ({}, [], "", None)
    if isinstance(value, Mapping):
        return all(_owns(fields.get(f"f:{key}"), part) for key, part in value.items() if fields)
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if is_list and any(name.startswith("k:") for name in fields):
        assert isinstance(value, Sequence)
        return all(_owns_item(fields, item) for item in value)
    return True


def _owns_item(fields: Mapping[str, Any], item: Any) -> bool:
    """An item of a list that is told apart by some of its fields."""
    for name, inner in fields.items():
        if not name.startswith("k:"):
            continue
        keys = json.loads(name[2:])
        if all(item.get(key, value) == value for key, value in keys.items()):
            return _owns(inner, item)
    return False
