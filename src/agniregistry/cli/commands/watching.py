"""watch: changes as they happen, one line each, until Ctrl-C."""

from __future__ import annotations

import base64
import binascii
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import click
from rich.text import Text

from agniregistry import types as t
from agniregistry.cli import data, render
from agniregistry.cli.exits import usage_error
from agniregistry.cli.options import DURATION, KIND, connection, current, filtering, output
from agniregistry.cli.output import console, is_terminal, note, stream_line

STYLES = {
    t.EventType.PUT: "green",
    t.EventType.DEREGISTERED: "magenta",
    t.EventType.EXPIRED: "red",
    t.EventType.REMOVED: "yellow",
}


@click.command("watch")
@click.argument("kind", type=KIND, required=False)
@filtering
@click.option("--current", "include_current", is_flag=True, help="First, what matches now.")
@click.option("--previous", is_flag=True, help="Also the records as they were before.")
@click.option("--resume-token", default="", help="Go on after this token (from -o json).")
@click.option("--count", type=click.IntRange(min=1), help="End after this many changes.")
@click.option("--for", "for_ms", type=DURATION, help="End after this long, such as 1m.")
@output("table", "json", "yaml", "name")
@connection
def watch_command(
    kind: t.Kind | None,
    select: Callable[[t.Kind | None], t.Filter],
    include_current: bool,
    previous: bool,
    resume_token: str,
    count: int | None,
    for_ms: int | None,
) -> None:
    """Follow changes as they happen, until Ctrl-C.

    \b
    Examples:
      agnictl watch
      agnictl watch gateways --region eu --current
      agnictl watch -o json | jq -r 'select(.event == "change") | .key.name'
      agnictl watch --count 1 --for 1m agents --name-prefix worker-

    Interruptions are survived: the watch resumes where it was, and where the registry no longer
    knows each change, it says so (gap) and sends the newest state. With -o json each line is an
    object; its resume_token goes on from there.
    """
    try:
        token = base64.b64decode(resume_token, validate=True)
    except binascii.Error as error:
        raise usage_error("--resume-token is not one", "take it from -o json") from error
    with (
        current().connect() as client,
        client.watch(
            select(kind),
            resume_token=token,
            include_current=include_current and not token,
            include_previous=previous,
        ) as watch,
    ):
        timer = threading.Timer((for_ms or 0) / 1000, watch.close)
        timer.daemon = True
        if for_ms is not None:
            timer.start()
        try:
            _follow(watch, count)
        except KeyboardInterrupt:
            return
        finally:
            timer.cancel()


def _follow(watch: Any, count: int | None) -> None:
    """Prints what the watch yields until it ends or enough changes came."""
    seen = 0
    printer = _Lines()
    for item in watch:
        if current().output in ("json", "yaml"):
            stream_line(item_data(item, watch.resume_token))
        else:
            printer.show(item)
        seen += isinstance(item, t.Change)
        if count is not None and seen >= count:
            return


def item_data(item: t.WatchItem, resume_token: bytes) -> dict[str, Any]:
    """An item of a watch as one JSON object."""
    match item:
        case t.Change():
            plain: dict[str, Any] = {"event": "change", **data.change_data(item)}
            token = resume_token
        case t.Present():
            keys = [data.key_data(key) for key in item.keys]
            plain = {"event": "present", "partition": item.partition, "keys": keys}
            token = resume_token
        case _:
            plain = {"event": type(item).__name__.lower()}
            token = item.resume_token
    if token:
        plain["resume_token"] = base64.b64encode(token).decode()
    return plain


class _Lines:
    """Prints changes as aligned lines; the header comes with the first."""

    def __init__(self) -> None:
        self._headed = False
        self._console = console()

    def show(self, item: t.WatchItem) -> None:
        match item:
            case t.Change() if current().output == "name":
                click.echo(render.short(item.key))
                sys.stdout.flush()
            case t.Change():
                self._change(item)
            case t.Started():
                note("watching; Ctrl-C ends")
            case t.Gap():
                note("gap: too much happened to tell each change; the newest state follows")
            case t.Synced():
                note("current state is complete; changes follow")
            case _:
                pass

    def _change(self, change: t.Change) -> None:
        if not self._headed:
            self._headed = True
            self._line(Text(_columns("TIME", "CHANGE", "RECORD", "REGION", "ADDRESS", "REV"),
                            style="bold"))  # fmt: skip
        spec = change.record.spec if change.record else None
        what = change.type.value
        if change.type is t.EventType.PUT:
            what = "created" if change.created else "changed" if change.live else "is"
        if change.record and change.record.draining and not change.created:
            what = "draining"
        line = _columns(
            time.strftime("%H:%M:%S"),
            what,
            render.short(change.key),
            spec.region if spec else render.NOTHING,
            render.address(spec) if spec else render.NOTHING,
            str(change.revision),
        )
        text = Text(line)
        text.stylize(STYLES[change.type], 10, 10 + len(what))
        self._line(text)

    def _line(self, text: Text) -> None:
        if is_terminal():
            self._console.print(text, soft_wrap=True)
        else:
            click.echo(text.plain.rstrip())
            sys.stdout.flush()


def _columns(moment: str, what: str, record: str, region: str, address: str, rev: str) -> str:
    return f"{moment:<10}{what:<14}{record:<42}  {region:<14}  {address:<40}  {rev}"
