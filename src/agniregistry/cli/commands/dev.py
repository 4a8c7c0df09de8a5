"""dev: what only development needs; a certificate authority whose root key lies in a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem
from rich.text import Text

from agniregistry.cli import render
from agniregistry.cli.exits import CliError, Exit, usage_error
from agniregistry.cli.options import DURATION, current, output
from agniregistry.cli.output import facts, note, say, show, structured, table_of
from agniregistry.identity import SpiffeId
from agniregistry.identity.dev_ca import DEFAULT_TRUST_DOMAIN, LEAF_VALIDITY, DevCa, Leaf

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_FOLDER = ".agni/ca"
"""Where the CA lies unless it is told else."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The addresses of a node that was given none."""

KINDS = ("node", "operator", "gateway", "agent")


class _LeafName(click.ParamType[str]):
    """The name of a certificate, completed from the default folder or the one named before it."""

    name = "name"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Certificates that begin like this."""
        folder = Path(ctx.params.get("folder") or DEFAULT_FOLDER)
        keys = (path.name.removesuffix("-key.pem") for path in folder.glob("*-key.pem"))
        return [CompletionItem(name) for name in sorted(keys) if name.startswith(incomplete)]


def folder_option(command: F) -> F:
    """--dir."""
    return click.option(
        "--dir",
        "folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_FOLDER,
        show_default=True,
        help="The CA's folder.",
    )(command)


def valid_option(default_ms: int | None, shown: str) -> Callable[[F], F]:
    """--valid."""
    return click.option(
        "--valid",
        "valid_ms",
        type=DURATION,
        default=default_ms,
        help=f"How long it lives, such as 7d. [default: {shown}]",
    )


def shout() -> None:
    """Nobody may take these certificates for more than they are."""
    text = "FOR DEVELOPMENT ONLY: the CA's key lies unprotected in its folder"
    click.echo(click.style(text, fg="yellow", bold=True) if sys.stderr.isatty() else text, err=True)


@click.group("dev")
def dev_command() -> None:
    """Certificates for development.

    \b
    Example:
      agnictl dev ca init
    """


@dev_command.group("ca")
def ca_command() -> None:
    """A certificate authority in a folder, FOR DEVELOPMENT ONLY.

    \b
    Examples:
      agnictl dev ca init
      agnictl dev ca issue node 1 --address 127.0.0.1
      agnictl dev ca issue agent default/worker-1
      agnictl dev ca renew
      agnictl dev ca show

    Its root key lies unprotected in that folder: whoever reads it can be anybody.
    """


@ca_command.command("init")
@click.option("--trust-domain", default=DEFAULT_TRUST_DOMAIN, show_default=True, metavar="NAME",
              help="Whose identities it issues.")  # fmt: skip
@folder_option
@output("table", "json", "yaml")
def init_command(trust_domain: str, folder: Path) -> None:
    """Make a CA; one that is there already is kept.

    \b
    Example:
      agnictl dev ca init --trust-domain dev.example.org
    """
    shout()
    created = not (folder / "ca.pem").exists()
    ca = DevCa.init(folder, trust_domain) if created else DevCa.open(folder)
    if ca.trust_domain != trust_domain:
        raise CliError(
            f"{folder} has the CA of another trust domain, {ca.trust_domain}",
            "name another folder with --dir",
            Exit.CONFLICT,
            "IDENTITY_EXISTS",
        )
    if structured({**_root_plain(ca), "created": created}):
        return
    done = "made" if created else "was there already"
    say(f"CA of {ca.trust_domain} {done}; trust {ca.bundle_file}")


@ca_command.command("issue")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("who", required=False, metavar="[ID|[NAMESPACE/]NAME]")
@click.option("--address", "addresses", multiple=True, metavar="IP|DNS",
              help="How it is reached (repeatable). [default: a node on loopback]")  # fmt: skip
@valid_option(int(LEAF_VALIDITY.total_seconds() * 1_000), "24h")
@folder_option
@output("table", "json", "yaml", "name")
def issue_command(
    kind: str, who: str | None, addresses: tuple[str, ...], valid_ms: int, folder: Path
) -> None:
    """Issue a certificate with a new key, in place of an older one.

    \b
    Examples:
      agnictl dev ca issue node 1 --address 10.0.0.7 --address node-1.example
      agnictl dev ca issue gateway default/a.example
      agnictl dev ca issue agent worker-1 --valid 1h
      agnictl dev ca issue operator
    """
    shout()
    ca = DevCa.open(folder)
    spiffe_id = _identity(ca.trust_domain, kind, who)
    if kind == "node" and not addresses:
        addresses = LOOPBACK
    leaf = ca.issue(spiffe_id, addresses, validity=timedelta(milliseconds=valid_ms))
    _tell_issued([leaf], one=True)


@ca_command.command("renew")
@click.argument("names", nargs=-1, type=_LeafName(), metavar="[NAME]...")
@valid_option(None, "as before")
@folder_option
@output("table", "json", "yaml", "name")
def renew_command(names: tuple[str, ...], valid_ms: int | None, folder: Path) -> None:
    """Issue certificates anew, with new keys; all of the folder where none is named.

    \b
    Examples:
      agnictl dev ca renew
      agnictl dev ca renew node-1 operator --valid 7d

    Programs that run with them take them over by themselves.
    """
    shout()
    ca = DevCa.open(folder)
    wanted = [ca.show(name).name for name in names] or [leaf.name for leaf in ca.list()]
    if not wanted:
        note(f"no certificates in {folder}; agnictl dev ca issue makes one")
    validity = None if valid_ms is None else timedelta(milliseconds=valid_ms)
    _tell_issued([ca.renew(name, validity=validity) for name in wanted], one=False)


@ca_command.command("show")
@click.argument("name", required=False, type=_LeafName())
@folder_option
@output("table", "json", "yaml", "name")
def show_command(name: str | None, folder: Path) -> None:
    """Show the CA with its certificates, or one of them in full.

    \b
    Examples:
      agnictl dev ca show
      agnictl dev ca show node-1 -o json
    """
    ca = DevCa.open(folder)
    if name is not None:
        leaf = ca.show(name)
        if not structured(_plain(leaf)) and not _only_names([leaf]):
            show(facts(_facts(leaf)))
        return
    leaves = ca.list()
    if structured({**_root_plain(ca), "certificates": [_plain(leaf) for leaf in leaves]}):
        return
    if _only_names(leaves):
        return
    show(facts([
        ("Trust domain", Text(ca.trust_domain, style="bold")),
        ("Trust bundle", str(ca.bundle_file)),
        ("Root expires", _end(ca.certificate.not_valid_after_utc)),
        ("Meant for", Text("development only", style="yellow")),
    ]))  # fmt: skip
    if not leaves:
        note("no certificates yet; agnictl dev ca issue makes one")
        return
    say("")
    rows: list[list[str | Text]] = [
        [
            Text(leaf.name, style="bold"),
            str(leaf.spiffe_id),
            ", ".join((*leaf.dns_names, *leaf.ip_addresses)) or render.NOTHING,
            _left(leaf.not_after),
        ]
        for leaf in leaves
    ]
    show(table_of(["NAME", "IDENTITY", "ADDRESS", "EXPIRES"], rows))


def _identity(trust_domain: str, kind: str, who: str | None) -> SpiffeId:
    if kind == "operator":
        if who:
            raise usage_error("there is one operator, without a name", f"leave out '{who}'")
        return SpiffeId.operator(trust_domain)
    if not who:
        given = "its name" if kind == "node" else "[NAMESPACE/]NAME"
        raise usage_error(f"which {kind}?", f"give {given} after '{kind}'")
    if kind == "node":
        return SpiffeId.node(trust_domain, who)
    namespace, slash, name = who.partition("/")
    if not slash:
        namespace, name = "default", who
    make = SpiffeId.gateway if kind == "gateway" else SpiffeId.agent
    return make(trust_domain, namespace, name)


def _only_names(leaves: Any) -> bool:
    if current().output != "name":
        return False
    for leaf in leaves:
        say(leaf.name)
    return True


def _tell_issued(leaves: list[Leaf], *, one: bool) -> None:
    plain = [_plain(leaf) for leaf in leaves]
    if structured(plain[0] if one else plain) or _only_names(leaves):
        return
    for leaf in leaves:
        say(f"{leaf.name} is {leaf.spiffe_id}")
    if one:
        show(facts(_facts(leaves[0])[2:]))


def _facts(leaf: Leaf) -> list[tuple[str, str | Text]]:
    return [
        ("Name", Text(leaf.name, style="bold")),
        ("Identity", str(leaf.spiffe_id)),
        ("Reached at", ", ".join((*leaf.dns_names, *leaf.ip_addresses)) or render.NOTHING),
        ("Expires", _end(leaf.not_after)),
        ("Certificate", str(leaf.cert_file)),
        ("Key", str(leaf.key_file)),
        ("Trust bundle", str(leaf.bundle_file)),
        ("Serial", leaf.serial),
        ("SHA-256", leaf.fingerprint),
    ]


def _end(moment: datetime) -> Text:
    return Text.assemble(f"{moment:%F %T} UTC, ", _left(moment))


def _left(moment: datetime) -> Text:
    """How much of a certificate's life is left."""
    left_ms = ceil((moment - datetime.now(UTC)).total_seconds()) * 1_000
    if left_ms <= 0:
        return Text("expired", style="red")
    return Text(f"in {render.duration(left_ms)}", style="yellow" if left_ms < 3_600_000 else "")


def _root_plain(ca: DevCa) -> dict[str, Any]:
    return {
        "trust_domain": ca.trust_domain,
        "development_only": True,
        "folder": str(ca.folder),
        "bundle_file": str(ca.bundle_file),
        "not_after": ca.certificate.not_valid_after_utc.isoformat(),
    }


def _plain(leaf: Leaf) -> dict[str, Any]:
    return {
        "name": leaf.name,
        "spiffe_id": str(leaf.spiffe_id),
        "dns_names": list(leaf.dns_names),
        "ip_addresses": list(leaf.ip_addresses),
        "not_before": leaf.not_before.isoformat(),
        "not_after": leaf.not_after.isoformat(),
        "serial": leaf.serial,
        "sha256": leaf.fingerprint,
        "cert_file": str(leaf.cert_file),
        "key_file": str(leaf.key_file),
        "bundle_file": str(leaf.bundle_file),
    }
