"""The flags that describe a record, for register and update alike."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agniregistry import types as t
from agniregistry.cli.exits import usage_error
from agniregistry.cli.options import PAIR, amounts

F = TypeVar("F", bound=Callable[..., Any])

_PLAIN = ("region", "ip", "domain", "port", "owner", "gateway")


def spec_options(command: F) -> F:
    """The flags themselves."""
    for decorate in (
        click.option("--payload-file", type=click.Path(exists=True, dir_okay=False),
                     help="Bytes of the owner's own, from this file."),
        click.option("--public-key", help="The owner's public key, as base64."),
        click.option("--gateway", help="For an agent: the gateway in front of it."),
        click.option("--owner", help="Who is responsible for it."),
        click.option("-l", "--label", "labels", type=PAIR, multiple=True,
                     help="KEY=VALUE to select by (repeatable)."),
        amounts("", "Total"),
        click.option("--port", type=int, help="TCP port."),
        click.option("--domain", help="DNS name."),
        click.option("--ip", help="IPv4 or IPv6 address."),
        click.option("-r", "--region", help="The region it serves or runs in."),
    ):  # fmt: skip
        command = decorate(command)
    return command


def spec_from(given: dict[str, Any]) -> t.Spec:
    """The spec that the flags describe."""
    plain = {name: given[name] for name in _PLAIN if given[name] is not None}
    payload = given["payload_file"]
    return t.Spec(
        **plain,
        capacity=given["capacity"],
        labels=dict(given["labels"]),
        public_key=_decoded(given["public_key"]) if given["public_key"] else b"",
        payload=Path(payload).read_bytes() if payload else b"",
    )


def fields_given(given: dict[str, Any]) -> list[str]:
    """The fields that were given, as an update mask names them."""
    fields = [name for name in _PLAIN if given[name] is not None]
    fields += [f"capacity.{amount}" for amount in given["capacity_fields"]]
    if given["labels"]:
        fields.append("labels")
    if given["public_key"] is not None:
        fields.append("public_key")
    if given["payload_file"] is not None:
        fields.append("payload")
    return fields


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise usage_error("--public-key must be base64") from error
