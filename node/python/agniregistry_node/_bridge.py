"""The only importer of the compiled module, so that everything else can be read, typed and
tested without knowing that it is compiled."""

from __future__ import annotations

from agniregistry_node._core import Server, build_profile, version

__all__ = ["Server", "build_profile", "version"]
