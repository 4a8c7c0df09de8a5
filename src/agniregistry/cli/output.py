"""Where output goes and what it looks like there: tables for people, plain columns for pipes.

On a terminal tables are coloured and fit its width. In a pipe they are neither: whole values,
aligned columns, no escape codes. NO_COLOR is respected by rich itself.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from agniregistry.cli.options import current

PIPE_COLUMNS = 100_000
"""So wide that nothing is ever cut or wrapped for a program."""

Row = Sequence[str | Text]


PADDING = 3
"""Spaces between columns."""

SHORTENED = {"NAME": 20, "ADDRESS": 12, "BECAUSE": 10, "DETAIL": 16, "MEANING": 16, "FILE": 12}
"""Columns that may be shortened on a narrow terminal, and their least width."""


def is_terminal() -> bool:
    """Whether a person is looking at stdout."""
    return sys.stdout.isatty()


def console() -> Console:
    """Writes to stdout, in colour where that is a terminal."""
    if is_terminal():
        # A wide table is asked for because nothing may be missing: its lines wrap.
        width = PIPE_COLUMNS if current().output == "wide" else None
        return Console(highlight=False, soft_wrap=False, width=width)
    return Console(
        highlight=False, width=PIPE_COLUMNS, force_terminal=False, no_color=True, file=sys.stdout
    )


def table_of(columns: Sequence[str], rows: Iterable[Row], right: Sequence[str] = ()) -> Table:
    """A table without lines: a header, then one row a record."""
    table = Table(box=None, pad_edge=False, padding=(0, PADDING, 0, 0), header_style="bold")
    lines = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    widths = [
        max([len(column), *(line[index].cell_len for line in lines)])
        for index, column in enumerate(columns)
    ]
    _fit(columns, widths, console().width - PADDING * (len(columns) - 1))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="ellipsis",
            no_wrap=True,
            width=width,
        )
    for line in lines:
        table.add_row(*line)
    return table


def _fit(columns: Sequence[str], widths: list[int], room: int) -> None:
    """Where a terminal is narrow, long texts give way, the longest first; short ones stay."""
    while sum(widths) > room:
        spare = [
            (widths[index] - SHORTENED.get(column, widths[index]), index)
            for index, column in enumerate(columns)
        ]
        most, index = max(spare)
        if most <= 0:
            return
        widths[index] -= 1


def show(renderable: Any) -> None:
    """Prints a table or a line of text."""
    target = console()
    if is_terminal():
        target.print(renderable)
        return
    with target.capture() as captured:
        target.print(renderable)
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def say(message: str, style: str = "") -> None:
    """One line on stdout."""
    show(Text(message, style=style))


def note(message: str) -> None:
    """One line on stderr for people, which scripts that read stdout never see."""
    click.echo(click.style(message, dim=True) if sys.stderr.isatty() else message, err=True)


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values below each other."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value if isinstance(value, Text) else Text(value))
    return grid


def structured(data: Any) -> bool:
    """Prints data where -o asks for data; tells whether it did."""
    match current().output:
        case "json":
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        case "yaml":
            import yaml

            text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
            click.echo(text.removesuffix("\n"))
        case _:
            return False
    return True


def stream_line(data: Any) -> bool:
    """Prints one item of a stream: a JSON object a line, or a YAML document."""
    match current().output:
        case "json":
            click.echo(json.dumps(data, ensure_ascii=False))
        case "yaml":
            import yaml

            text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
            click.echo(f"---\n{text}", nl=False)
        case _:
            return False
    sys.stdout.flush()
    return True


def repeatedly(draw: Callable[[], Any], interval_ms: int) -> None:
    """Draws again and again until Ctrl-C: in place on a terminal, one after the other in a pipe.

    `draw` answers with something to render, or prints by itself and answers None.
    """
    pause_s = max(interval_ms, 100) / 1000
    try:
        if not is_terminal() or current().output not in ("table", "wide"):
            while True:
                drawn = draw()
                if drawn is not None:
                    show(drawn)
                sys.stdout.flush()
                time.sleep(pause_s)
        with Live(console=console(), auto_refresh=False, screen=False) as live:
            while True:
                live.update(Padding(draw(), (0, 0, 1, 0)), refresh=True)
                time.sleep(pause_s)
    except KeyboardInterrupt:
        return


@contextmanager
def progress(label: str, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr while something takes long; nothing where nobody would see it."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}")]
    if total_bytes is not None:
        columns += [BarColumn(), DownloadColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total_bytes)
        yield lambda count: bar.advance(task, count)
