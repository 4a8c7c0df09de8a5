"""Commands on records: register, get, list, update, deregister, renew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import click

from agniregistry import types as t
from agniregistry.cli import data, render
from agniregistry.cli.commands.keepalive import keep_alive
from agniregistry.cli.commands.specs import fields_given, spec_from, spec_options
from agniregistry.cli.exits import CliError, not_found, usage_error
from agniregistry.cli.options import (
    DURATION,
    KIND,
    amounts,
    connection,
    current,
    filtering,
    keys_of,
    output,
    reading,
    watching,
)
from agniregistry.cli.output import note, repeatedly, say, show, structured
from agniregistry.cli.specfile import Wanted, read_file

KEEP_ALIVE_TTL_MS = 15_000
"""The time to live of --keep-alive where none is given, in milliseconds."""

BATCH_MAX = 1_000
"""Operations that the registry takes in one call."""


@click.command("register")
@click.argument("words", nargs=-1, metavar="[KIND [NAME]]")
@click.option("-f", "--file", "file", help="Records as JSON or YAML; - is stdin.")
@spec_options
@click.option("--ttl", "ttl_ms", type=DURATION, help="Lease, such as 30s. [default: none]")
@click.option("--incarnation", type=int, help="The owner's incarnation.")
@click.option("--expected-revision", type=int, help="Only if it has this revision.")
@click.option("--create-only", is_flag=True, help="Only if it does not exist.")
@click.option("--keep-alive", is_flag=True, help="Renew until Ctrl-C, then deregister.")
@output()
@connection
def register_command(
    words: tuple[str, ...],
    file: str | None,
    ttl_ms: int | None,
    incarnation: int | None,
    expected_revision: int | None,
    create_only: bool,
    keep_alive: bool,
    **given: Any,
) -> None:
    """Announce a gateway or an agent, from flags or from a file.

    \b
    Examples:
      agnictl register gateway --domain a.example --region eu --ip 192.0.2.7 --port 4000
      agnictl register agent worker-1 --region eu --cpu 8 --memory 16384 --ttl 30s --keep-alive
      agnictl register -f gateway.json
      curl -s https://example.org/gateways.yaml | agnictl register -f -

    A file holds what HTTP accepts: one record, a list, or several YAML documents. A gateway's
    name defaults to its domain. Without --ttl a record stays until it is deregistered.
    """
    wanted = _wanted(words, file, given)
    if create_only and expected_revision:
        raise usage_error("--create-only and --expected-revision exclude each other")
    expected = 0 if create_only else expected_revision
    wanted = [
        replace(
            each,
            ttl_ms=each.ttl_ms if ttl_ms is None else ttl_ms,
            incarnation=each.incarnation if incarnation is None else incarnation,
            expected_revision=each.expected_revision if expected is None else expected,
        )
        for each in wanted
    ]
    with current().connect() as client:
        if keep_alive:
            _keep(client, wanted)
            return
        answers = (
            [
                client.put(
                    each.key,
                    each.spec,
                    ttl_ms=each.ttl_ms or 0,
                    incarnation=each.incarnation or 0,
                    expected_revision=each.expected_revision,
                )
                for each in wanted
            ]
            if len(wanted) == 1
            else _batch(client, wanted)
        )
    _tell_registered(answers)


def _wanted(words: tuple[str, ...], file: str | None, given: dict[str, Any]) -> list[Wanted]:
    """What is to be registered, from the file or from flags."""
    namespace = current().namespace_or()
    if file is not None:
        if fields_given(given):
            raise usage_error(
                "flags for a record's fields and --file exclude each other",
                "put them into the file",
            )
        if len(words) > 1:
            raise usage_error("with --file, names stand in the file", "leave the name out")
        kind = KIND.convert(words[0], None, None) if words else None
        return read_file(file, kind, namespace)
    if not words:
        raise usage_error(
            "what is to be registered?",
            "agnictl register gateway --domain ... --region ..., or agnictl register -f FILE",
        )
    one_kind = len(words) == 1 and "/" not in words[0]
    key = t.Key(KIND.convert(words[0], None, None), "", namespace) if one_kind else None
    keys = [key] if key else keys_of(words)
    if len(keys) != 1:
        raise usage_error("flags describe one record", "use --file to register several at once")
    return [Wanted(keys[0], spec_from(given))]


def _keep(client: Any, wanted: list[Wanted]) -> None:
    if any(each.expected_revision is not None for each in wanted):
        raise usage_error(
            "--keep-alive registers again when a lease is lost; it can't be "
            "combined with --create-only or --expected-revision"
        )
    keep_alive(
        client,
        [(each.key, each.spec, each.ttl_ms or KEEP_ALIVE_TTL_MS, each.incarnation)
         for each in wanted],
    )  # fmt: skip


def _batch(client: Any, wanted: list[Wanted]) -> list[t.Registered]:
    operations = [
        t.RegisterOperation(
            each.key, each.spec, each.ttl_ms or 0, each.incarnation or 0, each.expected_revision
        )
        for each in wanted
    ]
    answers: list[t.Registered] = []
    refused: list[tuple[t.Key, Exception]] = []
    for start in range(0, len(operations), BATCH_MAX):
        part = operations[start : start + BATCH_MAX]
        for operation, result in zip(part, client.batch(part), strict=True):
            if isinstance(result, Exception):
                refused.append((operation.key, result))
            else:
                answers.append(result)
    if refused:
        _tell_registered(answers)
        for key, error in refused:
            note(f"{render.short(key)} was refused: {error}")
        raise refused[0][1]
    return answers


def _tell_registered(answers: list[t.Registered]) -> None:
    plain = [data.registered_data(answer) for answer in answers]
    if structured(plain[0] if len(plain) == 1 else plain):
        return
    for answer in answers:
        if current().output == "name":
            say(render.short(answer.key))
            continue
        what = "registered" if answer.created else "updated"
        line = f"{render.short(answer.key)} {what} at revision {answer.revision}"
        if answer.lease_id:
            ttl = render.duration(answer.ttl_ms)
            line += f", lease {answer.lease_id} for {ttl}"
        say(line)
        if answer.lease_id:
            note(
                f"it expires in {render.duration(answer.ttl_ms)} unless it is renewed: "
                f"agnictl renew {render.short(answer.key)}"
            )


@click.command("get")
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME...")
@reading
@watching
@output()
@connection
def get_command(words: tuple[str, ...], read: t.ReadOptions, again: bool, interval_ms: int) -> None:
    """Show one record with everything that is known of it, or several as a table.

    \b
    Examples:
      agnictl get gateway a.example
      agnictl get gateway/a.example agent/worker-1 -o wide
      agnictl list -o name | xargs agnictl get -o yaml
    """
    keys = keys_of(words)
    with current().connect() as client:

        def draw() -> Any:
            found = [client.get(key, read=read) for key in keys]
            plain = [data.instance_data(instance) for instance in found]
            if structured(plain[0] if len(plain) == 1 else plain):
                return None
            if current().output == "name":
                return "\n".join(render.short(instance.key) for instance in found)
            if len(found) == 1 and current().output == "table":
                return render.instance_facts(found[0])
            return render.instances_table(found, current().output == "wide")

        _once_or_again(draw, again, interval_ms)


@click.command("list")
@click.argument("kind", type=KIND, required=False)
@filtering
@click.option("--limit", type=click.IntRange(min=1), help="At most this many.")
@reading
@watching
@output()
@connection
def list_command(
    kind: t.Kind | None,
    select: Callable[[t.Kind | None], t.Filter],
    limit: int | None,
    read: t.ReadOptions,
    again: bool,
    interval_ms: int,
) -> None:
    """List records: gateways, agents, or both.

    \b
    Examples:
      agnictl list
      agnictl list gateways --region eu --label tier=gold
      agnictl list agents --gateway a.example --min-free-cpu 2 -o wide
      agnictl list -A --watch

    An empty list is no failure: the exit code is 0.
    """
    wanted = select(kind)
    with current().connect() as client:

        def draw() -> Any:
            found = _all(client, wanted, limit, read)
            if structured({"instances": [data.instance_data(each) for each in found]}):
                return None
            if current().output == "name":
                return "\n".join(render.short(each.key) for each in found) if found else None
            if not found:
                note(_nothing(wanted))
                return "" if again else None
            return render.instances_table(found, current().output == "wide")

        _once_or_again(draw, again, interval_ms)


def _all(client: Any, wanted: t.Filter, limit: int | None, read: t.ReadOptions) -> list[t.Instance]:
    """Every page, as of one moment, sorted by key for people."""
    found: list[t.Instance] = []
    token = ""
    while True:
        size = min(1_000, limit - len(found)) if limit else 1_000
        page = client.list(wanted, page_size=size, page_token=token, read=read)
        found += page.instances
        token = page.next_page_token
        if not token or (limit and len(found) >= limit):
            break
    found.sort(key=lambda each: (each.key.namespace, each.key.kind.value, each.key.name))
    return found[:limit]


def _nothing(wanted: t.Filter) -> str:
    """An empty list, with what to do about it."""
    what = f"{wanted.kind.value}s" if wanted.kind else "records"
    where = "any namespace" if wanted.namespace == "*" else f"namespace {wanted.namespace}"
    narrowed = wanted != t.Filter(kind=wanted.kind, namespace=wanted.namespace)
    if narrowed:
        return f"no {what} in {where} match; leave out a filter to see more"
    elsewhere = "" if wanted.namespace == "*" else " (-A looks into every namespace)"
    return f"no {what} in {where}{elsewhere}; announce one with agnictl register"


@click.command("update")
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME")
@spec_options
@click.option("--unlabel", multiple=True, metavar="KEY", help="Take this label away (repeatable).")
@click.option("--incarnation", type=int, default=0, help="The owner's incarnation.")
@click.option("--expected-revision", type=int, help="Only if it has this revision.")
@output("table", "json", "yaml", "name")
@connection
def update_command(
    words: tuple[str, ...],
    unlabel: tuple[str, ...],
    incarnation: int,
    expected_revision: int | None,
    **given: Any,
) -> None:
    """Change some fields of a record; the others stay.

    \b
    Examples:
      agnictl update gateway a.example --cpu 16 --memory 65536
      agnictl update agent worker-1 --label tier=gold --unlabel canary

    Labels are added to those that the record has.
    """
    keys = keys_of(words)
    if len(keys) != 1:
        raise usage_error("update changes one record at a time")
    mask = fields_given(given) + (["labels"] if unlabel and not given["labels"] else [])
    if not mask:
        raise usage_error("what is to change?", "give at least one field, such as --cpu 16")
    spec = spec_from(given)
    with current().connect() as client:
        if "labels" in mask:
            stored = client.get(keys[0])
            kept = {k: v for k, v in stored.spec.labels.items() if k not in unlabel}
            spec = replace(spec, labels={**kept, **spec.labels})
            if expected_revision is None:
                # Labels are replaced as a whole: a change in between must not be undone by it.
                expected_revision = stored.record.revision
        answer = client.update(
            keys[0], spec, mask, incarnation=incarnation, expected_revision=expected_revision
        )
    if structured({"key": data.key_data(keys[0]), "revision": answer.revision}):
        return
    name = render.short(keys[0])
    say(name if current().output == "name" else f"{name} updated at revision {answer.revision}")


@click.command("deregister")
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME...")
@click.option("--drain", "drain_ms", type=DURATION, default=0, help="Stay as draining for, first.")
@click.option("--successor", default="", help="While draining: who takes over.")
@click.option("--incarnation", type=int, default=0, help="The owner's incarnation.")
@click.option("--expected-revision", type=int, help="Only if it has this revision.")
@click.option("--ignore-missing", is_flag=True, help="Exit with 0 where there was none.")
@output("table", "json", "yaml", "name")
@connection
def deregister_command(
    words: tuple[str, ...],
    drain_ms: int,
    successor: str,
    incarnation: int,
    expected_revision: int | None,
    ignore_missing: bool,
) -> None:
    """Remove records, at once or after a time of draining.

    \b
    Examples:
      agnictl deregister gateway a.example
      agnictl deregister gateway a.example --drain 5m --successor b.example
      agnictl list -r eu -o name | xargs agnictl deregister

    A record that does not exist ends with exit code 3, unless --ignore-missing is given.
    """
    keys = keys_of(words)
    if successor and not drain_ms:
        raise usage_error("--successor is for draining", "add --drain 5m")
    told, missing = [], []
    with current().connect() as client:
        for key in keys:
            answer = client.deregister(
                key,
                incarnation=incarnation,
                expected_revision=expected_revision,
                drain_ms=drain_ms,
                successor=successor,
            )
            told.append(
                {"key": data.key_data(key), "existed": answer.existed, "revision": answer.revision}
            )
            if answer.maybe_removed:
                note(f"{render.short(key)} is gone; an answer was lost, so it may have been before")
            elif not answer.existed:
                missing.append(render.short(key))
            elif current().output == "name":
                say(render.short(key))
            elif current().output == "table":
                drained = f"drains for {render.duration(drain_ms)}, then goes"
                say(f"{render.short(key)} {drained if drain_ms else 'deregistered'}")
    structured(told[0] if len(told) == 1 else told)
    if missing and not ignore_missing:
        raise not_found(f"there is no {', no '.join(missing)}", "`agnictl list -A` shows them all")


@click.command("renew")
@click.argument("words", nargs=-1, required=True, metavar="LEASE_ID...|KIND NAME...")
@amounts("free-", "With it, report as free:")
@output("table", "json", "yaml")
@connection
def renew_command(
    words: tuple[str, ...],
    free_capacity: t.Capacity | None,
    free_capacity_fields: tuple[str, ...],
) -> None:
    """Extend leases to their full time, by their ids or by their records' names.

    \b
    Examples:
      agnictl renew agent worker-1
      agnictl renew agent worker-1 --free-cpu 3 --free-memory 2048
      agnictl renew 9007199254740995 18014398509481987

    Amounts that aren't given stay as last reported. A lease that is gone ends with exit code 3:
    its owner must register again.
    """
    with current().connect() as client:
        loads: list[t.LeaseLoad] = []
        if all(word.isdigit() for word in words):
            leases = [(int(word), word) for word in words]
            if free_capacity and len(free_capacity_fields) < len(fields(t.Capacity)):
                raise usage_error(
                    "by its id alone, a lease's load can't be completed",
                    "give all of --free-cpu, --free-bandwidth, --free-memory, --free-storage, "
                    "or KIND NAME in place of the id",
                )
            if free_capacity:
                loads = [t.LeaseLoad(lease, free_capacity) for lease, _ in leases]
        else:
            found = [client.get(key) for key in keys_of(words)]
            leases = [_lease_of(instance) for instance in found]
            if free_capacity:
                given = {name: getattr(free_capacity, name) for name in free_capacity_fields}
                loads = [
                    t.LeaseLoad(each.record.lease_id, replace(_free(each), **given))
                    for each in found
                ]
        answer = client.renew([lease for lease, _ in leases], loads)
    lost = [name for lease, name in leases if lease in answer.lost_lease_ids]
    plain = {
        "renewed": answer.renewed,
        "lost_lease_ids": [str(lease) for lease in answer.lost_lease_ids],
        "next_renewal_ms": answer.next_renewal_ms,
    }
    if not structured(plain) and answer.renewed:
        count = f"{answer.renewed} lease{'s' if answer.renewed != 1 else ''}"
        say(
            f"{count} renewed; the next renewal is due in {render.duration(answer.next_renewal_ms)}"
        )
    if lost:
        raise not_found(f"lost: {', '.join(lost)}", "register again, the lease has run out")


def _lease_of(instance: t.Instance) -> tuple[int, str]:
    name = render.short(instance.key)
    if not instance.record.lease_id:
        raise CliError(f"{name} has no lease", "it stays until it is deregistered")
    return instance.record.lease_id, name


def _free(instance: t.Instance) -> t.Capacity:
    """What counts as free until something else is said: the last report, else all of it."""
    return instance.load.free if instance.load else instance.spec.capacity or t.Capacity()


def _once_or_again(draw: Callable[[], Any], again: bool, interval_ms: int) -> None:
    if again:
        repeatedly(draw, interval_ms)
        return
    drawn = draw()
    if isinstance(drawn, str):
        click.echo(drawn)
    elif drawn is not None:
        show(drawn)
