"""Options and arguments that commands share, so that they mean and read the same everywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from agniregistry import types as t
from agniregistry.cli.exits import usage_error
from agniregistry.cli.settings import Settings, parse_duration_ms

F = TypeVar("F", bound=Callable[..., Any])

OUTPUTS = ("table", "wide", "json", "yaml", "name")

_KINDS = {
    **dict.fromkeys(("gateway", "gateways", "gw"), t.Kind.GATEWAY),
    **dict.fromkeys(("agent", "agents", "ag"), t.Kind.AGENT),
}


class DurationType(click.ParamType[int]):
    """A time with its unit, in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Reads "30s"; numbers are taken as they are, since defaults are in milliseconds."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration_ms(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class KindType(click.ParamType[t.Kind]):
    """gateway or agent, with the plurals that hands type by themselves."""

    name = "kind"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> t.Kind:
        """Reads a kind's name."""
        if isinstance(value, t.Kind):
            return value
        kind = _KINDS.get(str(value).lower())
        if kind is None:
            self.fail(f"'{value}' is not a kind; use gateway or agent", param, ctx)
        return kind

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[click.shell_completion.CompletionItem]:
        """Completes the two kinds."""
        return [
            click.shell_completion.CompletionItem(kind.value)
            for kind in t.Kind
            if kind.value.startswith(incomplete)
        ]


DURATION = DurationType()
KIND = KindType()


class PairType(click.ParamType[tuple[str, str]]):
    """KEY=VALUE, or KEY alone where a value is not needed."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Splits at the first equals sign."""
        if isinstance(value, tuple):
            return value
        key, _, content = str(value).partition("=")
        if not key:
            self.fail(f"'{value}' is not KEY=VALUE", param, ctx)
        return key, content


PAIR = PairType()
FILE = click.Path(dir_okay=False)


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def keep(ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
        if value is not None:
            setattr(ctx.find_root().ensure_object(Settings), name, value)
        return value

    return keep


def _setting(flags: tuple[str, ...], name: str, **options: Any) -> Callable[[F], F]:
    return click.option(*flags, name, expose_value=False, callback=_store(name), **options)


def connection(command: F) -> F:
    """Where the registry is: on every command that talks to one."""
    for decorate in (
        _setting(("--key",), "key", type=FILE, help="That certificate's private key."),
        _setting(("--cert",), "cert", type=FILE, help="Certificate to prove oneself with."),
        _setting(("--ca",), "ca", type=FILE, help="Trust bundle; the connection is then TLS."),
        _setting(("--timeout",), "timeout_ms", type=DURATION, help="Give up after, such as 10s."),
        _setting(("-n", "--namespace"), "namespace", help="Namespace. [default: default]"),
        _setting(("-c", "--context"), "context", help="Use this context of the config file."),
        _setting(("-a", "--address"), "address", help="HOST:PORT of a node."),
    ):
        command = decorate(command)
    return command


def output(*choices: str) -> Callable[[F], F]:
    """How to print."""
    return _setting(
        ("-o", "--output"),
        "output",
        type=click.Choice(choices or OUTPUTS),
        metavar="|".join(choices or OUTPUTS),
        help="How to print. [default: table]",
    )


def watching(command: F) -> F:
    """--watch: show it again and again."""
    interval = click.option(
        "--interval", "interval_ms", type=DURATION, default=2_000, help="With --watch: how often."
    )
    return click.option("-w", "--watch", "again", is_flag=True, help="Keep it current.")(
        interval(command)
    )


def reading(command: F) -> F:
    """How fresh an answer has to be."""

    @click.option(
        "--consistency",
        type=click.Choice([level.value for level in t.Consistency]),
        help="How fresh. [default: linearizable]",
    )
    @click.option(
        "--max-staleness",
        "max_staleness_ms",
        type=DURATION,
        default=0,
        help="With --consistency stale: the oldest that will do.",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, consistency: str | None, max_staleness_ms: int, **kwargs: Any) -> Any:
        level = t.Consistency(consistency) if consistency else None
        return command(*args, read=t.ReadOptions(level, max_staleness_ms), **kwargs)

    return wrapped  # type: ignore[return-value]


_AMOUNTS = ("cpu", "bandwidth", "memory", "storage")
_UNITS = {"cpu": "cores", "bandwidth": "Mbit/s", "memory": "MiB", "storage": "MiB"}


def amounts(prefix: str, text: str) -> Callable[[F], F]:
    """Four options for a capacity, handed on as one `Capacity`, None where none was given."""
    name = prefix.replace("-", "_") + "capacity"

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            given = {
                amount: value
                for amount in _AMOUNTS
                if (value := kwargs.pop(f"{prefix.replace('-', '_')}{amount}")) is not None
            }
            kwargs[name] = t.Capacity(**given) if given else None
            kwargs[f"{name}_fields"] = tuple(given)
            return command(*args, **kwargs)

        with_options: Any = wrapped
        for amount in reversed(_AMOUNTS):
            with_options = click.option(
                f"--{prefix}{amount}", type=float, help=f"{text} {amount}, in {_UNITS[amount]}."
            )(with_options)
        return with_options  # type: ignore[no-any-return]

    return decorate


def filtering(command: F) -> F:
    """Which records are meant, handed on as one function from a kind to a `Filter`."""

    @click.option("-r", "--region", "regions", multiple=True, help="In this region (repeatable).")
    @click.option(
        "-l",
        "--label",
        "labels",
        type=PAIR,
        multiple=True,
        help="With this label: KEY=VALUE, or KEY for any value (repeatable).",
    )
    @click.option(
        "--status",
        "statuses",
        multiple=True,
        type=click.Choice([status.value for status in t.Status]),
        help="In this state.",
    )
    @click.option("--name-prefix", default="", help="Whose name begins with this.")
    @click.option("--gateway", default="", help="Agents behind this gateway.")
    @click.option("-A", "--all-namespaces", is_flag=True, help="In every namespace.")
    @amounts("min-", "At least this")
    @amounts("min-free-", "At least this free")
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        taken = {name: kwargs.pop(name) for name in _FILTER_NAMES}
        return command(*args, select=lambda kind: _filter(kind, taken), **kwargs)

    return wrapped  # type: ignore[return-value]


_FILTER_NAMES = (
    "regions", "labels", "statuses", "name_prefix", "gateway", "all_namespaces",
    "min_capacity", "min_capacity_fields", "min_free_capacity", "min_free_capacity_fields",
)  # fmt: skip


def _filter(kind: t.Kind | None, taken: dict[str, Any]) -> t.Filter:
    settings = current()
    return t.Filter(
        kind=kind,
        namespace="*" if taken["all_namespaces"] else settings.namespace_or(),
        regions=tuple(taken["regions"]),
        labels=dict(taken["labels"]),
        min_capacity=taken["min_capacity"],
        min_free=taken["min_free_capacity"],
        statuses=tuple(t.Status(status) for status in taken["statuses"]),
        name_prefix=taken["name_prefix"],
        gateway=taken["gateway"],
    )


def current() -> Settings:
    """The settings of the running command."""
    return click.get_current_context().find_root().ensure_object(Settings)


def keys_of(words: tuple[str, ...], at_least_one: bool = True) -> list[t.Key]:
    """Reads "KIND NAME NAME ..." or "KIND/NAME KIND/NAME ...", as `-o name` prints it."""
    namespace = current().namespace_or()
    if not words and at_least_one:
        raise usage_error("which record?", "give KIND NAME or KIND/NAME, such as gateway edge-1")
    if words and words[0].lower() in _KINDS:
        kind = _KINDS[words[0].lower()]
        if len(words) == 1 and at_least_one:
            raise usage_error(f"which {kind.value}?", f"give its name after '{words[0]}'")
        return [t.Key(kind, name, namespace) for name in words[1:]]
    keys = []
    for word in words:
        first, slash, name = word.partition("/")
        if not slash or first.lower() not in _KINDS or not name:
            raise usage_error(
                f"'{word}' is neither a kind nor KIND/NAME",
                "give KIND NAME or KIND/NAME, such as gateway edge-1 or gateway/edge-1",
            )
        keys.append(t.Key(_KINDS[first.lower()], name, namespace))
    return keys
