"""discover: the best records for a need. explain: why a record is, or isn't, among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from agniregistry import types as t
from agniregistry.cli import data, render
from agniregistry.cli.exits import not_found, usage_error
from agniregistry.cli.options import (
    KIND,
    connection,
    current,
    filtering,
    keys_of,
    output,
    reading,
    watching,
)
from agniregistry.cli.output import note, repeatedly, show, structured, table_of

EXPLAIN_LIMIT = 100
"""Places that explain looks at: as many as the registry gives out."""

ADVICE = {
    t.ExclusionReason.NOT_REGISTERED: "`agnictl list -A` shows every record",
    t.ExclusionReason.EXPIRED: "its owner no longer renews; it comes back by registering",
    t.ExclusionReason.DRAINING: "its owner is taking it out of service; --status draining finds it",
    t.ExclusionReason.SUSPECT: "much of its region, or behind its gateway, went silent at once: "
    "look at the network in between first",
    t.ExclusionReason.REGION: "use --prefer REGION in place of --region, which demands it",
    t.ExclusionReason.LABELS: "compare its labels with --label; they are equal to the letter",
    t.ExclusionReason.CAPACITY: "it is too small; lower --min-... or give it more",
    t.ExclusionReason.FREE_CAPACITY: "it is too busy; lower --min-free-... or add another",
    t.ExclusionReason.OUTRANKED: "it matches, and others came before it: raise --limit",
    t.ExclusionReason.FILTER: "compare its name, status and gateway with the filters",
}


@click.command("discover")
@click.argument("kind", type=KIND)
@click.option("-p", "--prefer", default="", metavar="REGION", help="Rank this region first.")
@click.option("--limit", type=click.IntRange(1, 100), help="At most this many. [default: 3]")
@click.option("--choices", type=click.IntRange(1, 16), help="Power of k choices. [default: 2]")
@click.option("--explain", is_flag=True, help="Say who was left out, and why.")
@filtering
@reading
@watching
@output()
@connection
def discover_command(
    kind: t.Kind,
    select: Callable[[t.Kind | None], t.Filter],
    prefer: str,
    limit: int | None,
    choices: int | None,
    explain: bool,
    read: t.ReadOptions,
    again: bool,
    interval_ms: int,
) -> None:
    """Find the best gateways or agents for a need: alive, near, with room.

    \b
    Examples:
      agnictl discover gateways --prefer eu
      agnictl discover agents --region eu --min-free-cpu 4 --limit 10
      agnictl discover gateways --label tier=gold --explain
      agnictl discover gateway -p eu --limit 1 -o json | jq -r '.candidates[0].instance'

    --region demands a region, --prefer only ranks it first. When nothing is found, the exit
    code is 3.
    """
    wanted = select(kind)

    def ask(client: Any) -> t.Discovery:
        found: t.Discovery = client.discover(
            wanted,
            region=prefer,
            limit=limit or 0,
            choices=choices or 0,
            explain=explain,
            read=read,
        )
        return found

    with current().connect() as client:
        if again:
            repeatedly(lambda: _drawn(ask(client)), interval_ms)
            return
        found = ask(client)
    drawn = _drawn(found)
    if drawn is not None:
        show(drawn)
    if not found.candidates:
        hint = "" if explain else "--explain says who was left out, and why"
        raise not_found(f"no {kind.value} was found for this need", hint)


def _drawn(found: t.Discovery) -> Any:
    """A table, or None where it has been printed as data or there is nothing to show."""
    if structured(data.discovery_data(found)):
        return None
    if current().output == "name":
        names = [render.short(each.instance.key) for each in found.candidates]
        return "\n".join(names) if names else None
    parts: list[Any] = []
    if found.candidates:
        parts.append(_candidates(found, current().output == "wide"))
    if found.exclusions:
        parts += [Text("\nLeft out", style="bold")] if parts else [Text("Left out", style="bold")]
        parts.append(_exclusions(found.exclusions))
    if found.matched > len(found.candidates) > 0:
        note(f"{len(found.candidates)} of {found.matched} that match")
    return Group(*parts) if parts else None


def _candidates(found: t.Discovery, wide: bool) -> Table:
    columns = ["#", "NAME", "REGION", "ADDRESS", "STATUS", "SCORE", "BECAUSE"]
    if wide:
        columns += ["CAPACITY", "LABELS", "LEASE", "REV"]
    rows: list[list[str | Text]] = []
    for place, candidate in enumerate(found.candidates, 1):
        instance = candidate.instance
        row: list[str | Text] = [
            str(place),
            Text(instance.key.name, style="bold"),
            instance.spec.region,
            render.address(instance.spec),
            render.status(instance.status),
            f"{candidate.score.total:.2f}",
            Text(_because(candidate.score), style="dim"),
        ]
        if wide:
            row += [
                render.capacity(instance.spec.capacity),
                render.labels(instance.spec),
                render.lease(instance),
                str(instance.record.revision),
            ]
        rows.append(row)
    return table_of(columns, rows, right=("#", "SCORE", "REV"))


def _because(score: t.Score) -> str:
    return (
        f"region {score.region_match:.2f}, free {score.free_capacity:.2f}, "
        f"fresh {score.freshness:.2f}"
    )


def _exclusions(exclusions: tuple[t.Exclusion, ...]) -> Table:
    rows: list[list[str | Text]] = [
        [each.key.name, Text(each.reason.value, style="yellow"), each.detail or render.NOTHING]
        for each in exclusions
    ]
    return table_of(["NAME", "REASON", "DETAIL"], rows)


@click.command("explain")
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME")
@click.option("-p", "--prefer", default="", metavar="REGION", help="Rank this region first.")
@filtering
@reading
@output("table", "json", "yaml")
@connection
def explain_command(
    words: tuple[str, ...],
    select: Callable[[t.Kind | None], t.Filter],
    prefer: str,
    read: t.ReadOptions,
) -> None:
    """Say why discovery answers with a record, or why it does not.

    \b
    Examples:
      agnictl explain gateway a.example
      agnictl explain gateway a.example --region eu --min-free-cpu 4

    Takes the filters of discover. A record that isn't registered ends with exit code 3; any
    other explanation with 0, and `.answered` in -o json tells which it was.
    """
    keys = keys_of(words)
    if len(keys) != 1:
        raise usage_error("explain speaks of one record at a time")
    key = keys[0]
    with current().connect() as client:
        found: t.Discovery = client.discover(
            select(key.kind), region=prefer, limit=EXPLAIN_LIMIT, explain=True,
            explain_names=(key.name,), read=read,
        )  # fmt: skip
    place = next((n for n, each in enumerate(found.candidates, 1)
                  if each.instance.key.name == key.name), 0)  # fmt: skip
    exclusion = next((each for each in found.exclusions if each.key.name == key.name), None)
    if not structured(_explanation(key, found, place, exclusion)):
        if place:
            _show_place(key, found, place)
        else:
            _show_exclusion(key, found, exclusion)
    if not place and exclusion and exclusion.reason is t.ExclusionReason.NOT_REGISTERED:
        raise not_found(f"there is no {render.short(key)}", ADVICE[exclusion.reason])


def _explanation(
    key: t.Key, found: t.Discovery, place: int, exclusion: t.Exclusion | None
) -> dict[str, Any]:
    plain: dict[str, Any] = {"key": data.key_data(key), "answered": bool(place)}
    if place:
        plain["place"] = place
        plain["candidate"] = data.discovery_data(found)["candidates"][place - 1]
    elif exclusion:
        plain.update(reason=exclusion.reason.value, detail=exclusion.detail)
    plain["matched"] = found.matched
    return plain


def _show_place(key: t.Key, found: t.Discovery, place: int) -> None:
    candidate = found.candidates[place - 1]
    others = f"place {place} of {found.matched} that match"
    show(Text.assemble((f"{render.short(key)} is answered", "green"), f": {others}"))
    score = candidate.score
    show(table_of(
        ["PART", "SCORE", "MEANING"],
        [
            ["region", f"{score.region_match:.2f}", f"it is in {candidate.instance.spec.region}"],
            ["free", f"{score.free_capacity:.2f}", _free(candidate.instance)],
            ["fresh", f"{score.freshness:.2f}", _freshness(candidate.instance)],
            ["total", Text(f"{score.total:.2f}", style="bold"), "what it is ranked by"],
        ],
        right=("SCORE",),
    ))  # fmt: skip


def _free(instance: t.Instance) -> str:
    total = render.capacity(instance.spec.capacity)
    if instance.load is None:
        return f"no load was reported, so all counts as free: {total}"
    return f"{render.capacity(instance.load.free)} of {total}"


def _freshness(instance: t.Instance) -> str:
    if instance.load is None:
        return "no load was reported"
    return f"its load was reported {render.duration(instance.load.age_ms)} ago"


def _show_exclusion(key: t.Key, found: t.Discovery, exclusion: t.Exclusion | None) -> None:
    if exclusion is None:
        reason, detail = "outranked", "it matches, but others were drawn"
        advice = "ask again, or narrow the filters"
    else:
        reason, detail = exclusion.reason.value, exclusion.detail
        advice = ADVICE[exclusion.reason]
    show(Text.assemble((f"{render.short(key)} is not answered", "yellow"), f": {reason}"))
    if detail:
        show(Text(f"  {detail}"))
    show(Text(f"  {found.matched} other{'' if found.matched == 1 else 's'} match", style="dim"))
    note(f"  try: {advice}")
