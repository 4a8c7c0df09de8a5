"""How the images are called: as the chart asks for them, so who has loaded them installs."""

from __future__ import annotations

import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
REGISTRY = "ghcr.io/agnistack"
"""The images' names begin with it; it is not asked for anything."""


def version() -> str:
    """The version that all distributions share."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def image_name(distribution: str, registry: str = REGISTRY, tag: str = "") -> str:
    """The name of the image of a distribution: `agniregistry-node`, `agniregistry-operator`.

    Without a tag it has that of the version.
    """
    return f"{registry}/{distribution}:{tag or version()}"
