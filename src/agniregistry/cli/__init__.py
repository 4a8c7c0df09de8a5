"""agnictl: the registry from a terminal, for people and for scripts.

Everything goes through `agniregistry.client.Client`, so whatever the CLI can do, a program can.
"""

EXTRA = ("click", "rich", "yaml")
"""What the CLI needs beyond the SDK, by the names of import."""

try:
    from agniregistry.cli.app import agnictl, main
except ModuleNotFoundError as error:
    if error.name not in EXTRA:
        raise
    message = f"agnictl needs {error.name}: pip install 'agniregistry[cli]'"
    raise SystemExit(message) from error

__all__ = ["agnictl", "main"]
