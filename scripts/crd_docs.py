"""Parts of the CRD and of docs/crd.md that are made from something else.

The CRD's `config` has the node's settings as typed properties, made from the fields of
`NodeConfig`, so that the API server refuses what a node would refuse. docs/crd.md is made from
the CRD.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import yaml

BEGIN = "# node settings: begin, by make docs"
END = "# node settings: end"

MANAGED = frozenset({
    *("data_dir", "listen", "peer_listen", "peer_address", "client_address", "health_listen"),
    *("tls_dir", "tls_certificate_file", "tls_key_file", "tls_trust_file", "tls_trust_domain"),
    *("insecure", "region", "cluster_id", "partitions", "name", "seeds", "zone", "replication"),
})  # fmt: skip
"""Settings that the operator itself decides, from other fields of the resource."""

_TYPES = {str: "string", int: "integer", bool: "boolean"}


def crd_with_settings(path: Path) -> str:
    """The CRD's text with the current settings of a node between its two marks."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{path} has lost its marks for the node's settings")
    indent = " " * (len(before) - len(before.rstrip(" ")))
    lines = yaml.safe_dump(config_properties(), sort_keys=False, width=96).splitlines()
    body = "".join(f"{indent}{line}\n" for line in lines)
    return f"{before}{BEGIN}\n{body}{indent}{END}{after}"


def config_properties() -> dict[str, Any]:
    """A structural schema of each setting that people may give."""
    from agniregistry_node.config import fields

    found: dict[str, Any] = {}
    for spec in fields():
        if spec.name in MANAGED:
            continue
        unit = f" In {spec.about.unit}." if spec.about.unit else ""
        danger = f" Danger: {spec.about.danger}" if spec.about.danger else ""
        schema: dict[str, Any] = {
            "type": _TYPES[spec.type],
            "description": f"{spec.about.text}{unit}{danger}",
        }
        if spec.type is int:
            schema["format"] = "int64"
            bounds = inspect.getclosurevars(spec.about.check).nonlocals if spec.about.check else {}
            schema |= {
                word: bounds[name]
                for word, name in (("minimum", "least"), ("maximum", "most"))
                if name in bounds
            }
        found[spec.name] = schema
    return found


def crd_page(text: str) -> str:
    """docs/crd.md, from the CRD's text."""
    crd = yaml.safe_load(text)
    names, version = crd["spec"]["names"], crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    origin = (
        "Generated from `crds/agniregistries.agnistack.online.yaml` by `make docs`. "
        "How it is used is in [kubernetes.md](kubernetes.md)."
    )
    called = (
        f"`apiVersion: {crd['spec']['group']}/{version['name']}`, short name "
        f"`{names['shortNames'][0]}`, category `{names['categories'][0]}`. "
        "`kubectl scale` changes `spec.nodes`."
    )
    parts = [f"# {names['kind']}", "", origin, "", called, ""]
    properties = schema["properties"]
    for part in ("spec", "status"):
        parts += [f"## {part}", "", properties[part]["description"], ""]
        parts += ["| field | type | default | meaning |", "|---|---|---|---|"]
        parts += _rows(properties[part], "")
        parts.append("")
    parts += ["## What the API server refuses", "", "| field | message |", "|---|---|"]
    parts += [f"| {where} | {rule['message']} |" for where, rule in _rules(schema, "")]
    return "\n".join(parts) + "\n"


def _rows(schema: dict[str, Any], prefix: str) -> list[str]:
    """One row a field, depth first."""
    rows = []
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        said = [field.get("description", ""), _bounds(field)]
        default = _default(field["default"]) if "default" in field else ""
        if name in required:
            default = "required"
        rows.append(f"| `{path}` | {_kind(field)} | {default} | {' '.join(filter(None, said))} |")
        rows += _rows(field, f"{path}.")
        if field.get("type") == "array":
            rows += _rows(field["items"], f"{path}[].")
    return rows


def _kind(field: dict[str, Any]) -> str:
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(field['items'])}"
    if "additionalProperties" in field:
        return "map"
    return kind


def _default(value: object) -> str:
    if value == {}:
        return ""
    word = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{word}`"


def _bounds(field: dict[str, Any]) -> str:
    if "enum" in field:
        return f"One of {', '.join(f'`{word}`' for word in field['enum'])}."
    if "minimum" in field and "maximum" in field:
        return f"{field['minimum']}..{field['maximum']}."
    return ""


def _rules(schema: dict[str, Any], path: str) -> list[tuple[str, dict[str, str]]]:
    """All CEL rules with the field that each is about."""
    found = [
        (f"`{path}{rule.get('fieldPath', '')}`" if path else "`metadata.name`", rule)
        for rule in schema.get("x-kubernetes-validations", [])
    ]
    for name, field in schema.get("properties", {}).items():
        found += _rules(field, f"{path}.{name}" if path else name)
    if "items" in schema:
        found += _rules(schema["items"], f"{path}[]")
    return found
