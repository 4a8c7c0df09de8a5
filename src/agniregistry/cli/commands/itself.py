"""agnictl itself: contexts, completion, version, and what it says when it is run alone."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class
from rich.text import Text

from agniregistry.cli import render
from agniregistry.cli.exits import CliError, not_found, usage_error
from agniregistry.cli.options import FILE, connection, current, output
from agniregistry.cli.output import facts, note, say, show, structured, table_of
from agniregistry.cli.settings import TLS_FIELDS, ContextFile, parse_duration_ms
from agniregistry.config import DEFAULT_TARGET
from agniregistry.errors import AgniError


def own_version() -> str:
    """The installed version; a source tree that was never installed has none."""
    try:
        return version("agniregistry")
    except PackageNotFoundError:
        return "unknown (run from source)"


def orientation() -> None:
    """What `agnictl` alone says: where one stands, and where to go."""
    address, source = current().where()
    show(Text.assemble(("agnictl", "bold"), " announces, finds and watches gateways and agents."))
    show(Text.assemble("It talks to ", (address, "bold"), f" ({source}).\n"))
    show(facts([
        ("See what is there", "agnictl status; agnictl list"),
        ("Announce a gateway", "agnictl register gateway --domain a.example --region eu"),
        ("Find the best ones", "agnictl discover gateways --prefer eu"),
        ("Why (not) this one?", "agnictl explain gateway a.example"),
        ("Follow changes", "agnictl watch --current"),
        ("Another registry", "agnictl context set NAME --address HOST:PORT --use"),
        ("Everything else", "agnictl --help"),
    ]))  # fmt: skip


@click.command("version")
@output("table", "json", "yaml")
@connection
@click.option("--client", "client_only", is_flag=True, help="Ask no node.")
def version_command(client_only: bool) -> None:
    """Show the version of agnictl, and of the node that answers.

    \b
    Example:
      agnictl version -o json | jq -r .client
    """
    node = ""
    if not client_only:
        try:
            with current().connect() as client:
                status = client.status(timeout_ms=min(current().wait_ms(), 2_000))
            node = f"{status.version} ({status.build_profile})"
        except (AgniError, CliError):
            node = ""
    plain = {"client": own_version(), "python": platform.python_version(), "node": node or None}
    if structured(plain):
        return
    pairs = [("agnictl", own_version()), ("Python", platform.python_version())]
    if not client_only:
        pairs.append(("Node", node or f"no answer from {current().where()[0]}"))
    show(facts(pairs))


SHELLS = {
    "bash": 'eval "$(agnictl completion bash)"     # in ~/.bashrc',
    "zsh": 'eval "$(agnictl completion zsh)"      # in ~/.zshrc',
    "fish": "agnictl completion fish | source      # in ~/.config/fish/config.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Examples:
      eval "$(agnictl completion bash)"
      agnictl completion fish | source
    """
    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(ctx.find_root().command, {}, "agnictl", "_AGNICTL_COMPLETE").source())


@click.group("context")
def context_command() -> None:
    """Choose between registries by name.

    \b
    Examples:
      agnictl context set home --address 127.0.0.1:7400 --use
      agnictl context set prod --address registry.example:7400 --namespace web --timeout 30s
      agnictl context list
      agnictl context use prod
      agnictl --context home list
    """


class _ContextName(click.ParamType[str]):
    """The name of a context, completed from the file."""

    name = "name"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """The contexts that begin like this."""
        known = sorted(ContextFile.load().contexts)
        return [CompletionItem(name) for name in known if name.startswith(incomplete)]


@context_command.command("list")
@output("table", "json", "yaml", "name")
def context_list_command() -> None:
    """List the contexts; the current one is marked.

    \b
    Example:
      agnictl context list
    """
    file = ContextFile.load()
    plain = [
        {"name": name, "current": name == file.current, **fields}
        for name, fields in sorted(file.contexts.items())
    ]
    if structured(plain):
        return
    if current().output == "name":
        for name in sorted(file.contexts):
            say(name)
        return
    if not file.contexts:
        note(f"no contexts in {file.path}; agnictl context set NAME --address HOST:PORT")
        return
    rows = [
        [
            "*" if name == file.current else "",
            Text(name, style="bold"),
            fields.get("address", DEFAULT_TARGET),
            fields.get("namespace", render.NOTHING),
            fields.get("timeout", render.NOTHING),
            "mTLS" if "cert" in fields else "TLS" if "ca" in fields else render.NOTHING,
        ]
        for name, fields in sorted(file.contexts.items())
    ]
    show(table_of(["CURRENT", "NAME", "ADDRESS", "NAMESPACE", "TIMEOUT", "TLS"], rows))


@context_command.command("use")
@click.argument("name", type=_ContextName())
def context_use_command(name: str) -> None:
    """Make a context the current one.

    \b
    Example:
      agnictl context use prod
    """
    file = ContextFile.load()
    address = file.need(name).get("address", DEFAULT_TARGET)
    file.current = name
    file.save()
    say(f"context {name} is current ({address})")


@context_command.command("set")
@click.argument("name")
@click.option("-a", "--address", help="HOST:PORT of a node.")
@click.option("-n", "--namespace", help="The namespace to use.")
@click.option("--timeout", help="How long to wait, such as 10s.")
@click.option("--ca", type=FILE, help="Trust bundle; the connection is then TLS.")
@click.option("--cert", type=FILE, help="Certificate to prove oneself with.")
@click.option("--key", type=FILE, help="That certificate's private key.")
@click.option("--use", "use_it", is_flag=True, help="Make it the current one.")
def context_set_command(name: str, use_it: bool, **given: str | None) -> None:
    """Add a context or change it; what isn't given stays.

    \b
    Examples:
      agnictl context set prod --address registry.example:7400 --use
      agnictl context set prod --ca bundle.pem --cert operator.pem --key operator-key.pem
    """
    address, timeout = given["address"], given["timeout"]
    fields = {key: value for key, value in given.items() if value}
    for kind in TLS_FIELDS:
        if kind in fields:  # Typed here, used from anywhere.
            fields[kind] = str(Path(fields[kind]).expanduser().absolute())
    file = ContextFile.load()
    if name not in file.contexts and "address" not in fields:
        raise usage_error(f"context {name} is new", "give its --address HOST:PORT")
    if address and ":" not in address:
        raise usage_error(f"'{address}' is not HOST:PORT", f"perhaps {address}:7400")
    if timeout:
        try:
            parse_duration_ms(timeout)
        except ValueError as error:
            raise usage_error(f"--timeout: {error}") from error
    file.contexts[name] = {**file.contexts.get(name, {}), **fields}
    if use_it:
        file.current = name
    file.save()
    say(f"context {name} saved in {file.path}" + (" and current" if use_it else ""))


@context_command.command("remove")
@click.argument("name", type=_ContextName())
def context_remove_command(name: str) -> None:
    """Remove a context.

    \b
    Example:
      agnictl context remove prod
    """
    file = ContextFile.load()
    if name not in file.contexts:
        raise not_found(f"there is no context '{name}'", "`agnictl context list` shows them")
    del file.contexts[name]
    file.current = "" if file.current == name else file.current
    file.save()
    say(f"context {name} removed")
