"""Puts the settings together: default < preset < file < environment < flag.

All faults of all layers are collected before anything is refused, because whoever repairs a
configuration one fault at a time restarts a node ten times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agniregistry_node.config import PRESETS, NodeConfig, Value, faults_of, fields
from agniregistry_node.errors import ConfigError

ENV_PREFIX = "AGNI_"
ENV_PRESET = "AGNI_PRESET"
ENV_CONFIG = "AGNI_CONFIG"
CONFIG_FILE_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Layered:
    """Settings, and which layer each of them comes from."""

    config: NodeConfig
    sources: Mapping[str, str]


def load(
    *,
    path: str | None = None,
    preset: str | None = None,
    env: Mapping[str, str],
    flags: Mapping[str, str] | None = None,
) -> Layered:
    """Reads all layers.

    Args:
        path: The YAML file; AGNI_CONFIG names it where this is None; none at all is fine.
        preset: dev or production; else AGNI_PRESET, else the file's `preset`.
        env: The environment.
        flags: Texts of the command line, by the setting's name.

    Raises:
        ConfigError: With every fault of every layer.
    """
    faults: list[str] = []
    path = path or env.get(ENV_CONFIG) or None
    from_file = _read_file(path, faults) if path else {}
    file_preset = from_file.pop("preset", None)
    base = _preset(preset or env.get(ENV_PRESET) or file_preset, faults)
    faults += [f"{path}: {fault}" for fault in faults_of(from_file)]
    from_env = _parse(_settings_in(env), "environment", faults)
    from_flags = _parse(flags or {}, "flag", faults)
    layers: list[tuple[str, Mapping[str, Any]]] = [
        ("preset", base),
        (f"file {path}", from_file),
        ("environment", from_env),
        ("flag", from_flags),
    ]
    if faults:
        raise ConfigError(faults)
    values: dict[str, Any] = {}
    sources = dict.fromkeys((spec.name for spec in fields()), "default")
    for source, layer in layers:
        values.update(layer)
        sources.update(dict.fromkeys(layer, source))
    config = NodeConfig(**values)
    config.validate()
    return Layered(config, sources)


def _settings_in(env: Mapping[str, str]) -> dict[str, str]:
    """The settings of the environment. Foreign AGNI_ names are somebody else's business (agnictl
    has some), so only known ones count."""
    return {spec.name: env[spec.env] for spec in fields() if spec.env in env}


def _parse(texts: Mapping[str, str], layer: str, faults: list[str]) -> dict[str, Value]:
    """The values of a layer of texts; what can't be one is added to `faults`."""
    known = {spec.name: spec for spec in fields()}
    values: dict[str, Value] = {}
    for name, text in texts.items():
        try:
            value = known[name].parse(text)
        except ValueError as error:
            faults.append(f"{layer}: {error}")
            continue
        fault = known[name].fault(value)
        if fault:
            faults.append(f"{layer}: {fault}")
        values[name] = value
    return values


def _preset(name: Any, faults: list[str]) -> Mapping[str, Value]:
    """The preset's values."""
    if name is None:
        return {}
    if not isinstance(name, str) or name not in PRESETS:
        faults.append(f"preset must be {' or '.join(PRESETS)}, not {name!r}")
        return {}
    return PRESETS[name]


def _read_file(path: str, faults: list[str]) -> dict[str, Any]:
    """The mapping in a YAML file; faults where there is none."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(CONFIG_FILE_BYTES_MAX + 1)
    except OSError as error:
        faults.append(f"{path}: can't be read: {(error.strerror or str(error)).lower()}")
        return {}
    if len(text) > CONFIG_FILE_BYTES_MAX:
        faults.append(f"{path}: must be at most {CONFIG_FILE_BYTES_MAX} bytes")
        return {}
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        faults.append(f"{path}: is not YAML: {' '.join(str(error).split())}")
        return {}
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        faults.append(f"{path}: must be settings, one `name: value` a line")
        return {}
    return content
