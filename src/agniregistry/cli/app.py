"""The command tree: what stands in it, in which section of the help, and how failures end.

Commands are imported when they are used: `agnictl wal verify` on a rescue machine should not
need gRPC to have loaded, and completion must be quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from agniregistry.cli.exits import MEANINGS, CliError, Exit, exit_code, tell
from agniregistry.cli.options import connection
from agniregistry.cli.settings import Settings

SECTIONS: dict[str, dict[str, str]] = {
    "Records": {
        "register": "records",
        "get": "records",
        "list": "records",
        "update": "records",
        "deregister": "records",
        "renew": "records",
    },
    "Discovery": {"discover": "discovery", "explain": "discovery", "watch": "watching"},
    "The cluster": {"cluster": "members", "status": "cluster", "snapshot": "cluster"},
    "Backup": {"backup": "backup", "restore": "backup"},
    "A node's disk": {"wal": "disk"},
    "Development": {"dev": "dev"},
    "agnictl itself": {"context": "itself", "completion": "itself", "version": "itself"},
}
"""Each command's section and the module that holds it."""

_HOMES = {name: home for section in SECTIONS.values() for name, home in section.items()}

EPILOG = "\b\nExit codes:\n" + "\n".join(
    f"  {int(code)}  {meaning}" for code, meaning in MEANINGS.items()
)


class Tree(click.Group):
    """The root: commands by section, failures as one line with a code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Every command, in the order of the help."""
        return list(_HOMES)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """Imports the command's module on first use."""
        home = _HOMES.get(cmd_name)
        if home is None:
            return None
        module = import_module(f"agniregistry.cli.commands.{home}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but with a guess at what was meant."""
        if args and args[0] not in _HOMES and not args[0].startswith("-"):
            near = get_close_matches(args[0], _HOMES, n=1)
            guess = f"; did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"there is no command '{args[0]}'{guess}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands below their sections."""
        for title, commands in SECTIONS.items():
            rows = []
            for name in commands:
                command = self.get_command(ctx, name)
                rows.append((name, command.get_short_help_str(70) if command else ""))
            with formatter.section(title):
                formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002 - failures are told here, not by click
        **extra: Any,
    ) -> Any:
        """Runs a command line and ends the process with its exit code."""
        settings = extra.setdefault("obj", Settings())
        words = list(sys.argv[1:] if args is None else args)
        try:
            done = super().main(words, prog_name or "agnictl", complete_var, False, **extra)
        except click.exceptions.Abort:
            click.echo("interrupted", err=True)
            sys.exit(130)
        except Exception as error:
            if os.environ.get("AGNICTL_DEBUG"):
                raise
            tell(_known(error), _address(settings), _wants_json(settings, words))
            sys.exit(int(exit_code(error)))
        sys.exit(done if isinstance(done, int) else 0)


def _known(error: Exception) -> Exception:
    """The error, or what to say of one that nobody foresaw."""
    from agniregistry.errors import AgniError
    from agniregistry.wal import WalError

    if isinstance(error, click.ClickException | AgniError | WalError | OSError):
        return error
    return CliError(
        f"a fault of agnictl: {type(error).__name__}: {error}",
        "please report it with the output of the same command under AGNICTL_DEBUG=1",
        reason="INTERNAL",
    )


def _address(settings: Settings) -> str:
    try:
        return settings.where()[0]
    except CliError:
        return "the registry"


def _wants_json(settings: Settings, words: Sequence[str]) -> bool:
    """Also where parsing failed before -o was seen."""
    text = " ".join(words)
    return settings.output == "json" or any(
        flag in text for flag in ("-o json", "-ojson", "--output json", "--output=json")
    )


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from agniregistry.cli.commands.itself import own_version

        click.echo(f"agnictl {own_version()}")
        ctx.exit(Exit.OK)


@click.group(
    cls=Tree,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@connection
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def agnictl(ctx: click.Context) -> None:
    """Announce, find and watch gateways and agents; look after the registry's nodes.

    \b
    The registry is chosen by, first wins:
      --address, --context, AGNI_ADDRESS, AGNICTL_CONTEXT, the current context, 127.0.0.1:7400
    A connection is TLS where --ca, AGNI_CA or the context says so (likewise --cert and --key).
    Contexts are kept in ~/.config/agniregistry/config.yaml (or AGNICTL_CONFIG).
    NO_COLOR turns colours off; in a pipe there are none.
    """
    if ctx.invoked_subcommand is None:
        from agniregistry.cli.commands.itself import orientation

        orientation()
        ctx.exit(Exit.OK)


def main() -> None:
    """The `agnictl` command."""
    agnictl.main()
