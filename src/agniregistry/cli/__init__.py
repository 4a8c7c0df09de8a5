"""agnictl: the registry from a terminal, for people and for scripts.

Everything goes through `agniregistry.client.Client`, so whatever the CLI can do, a program can.
"""

from agniregistry.cli.app import agnictl, main

__all__ = ["agnictl", "main"]
