"""SPIFFE IDs against a grammar written anew here, and the registry's own paths."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agniregistry.errors import InvalidFieldError
from agniregistry.identity import Role, SpiffeId

GRAMMAR = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*")
SEGMENT = st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True).filter(
    lambda text: text not in (".", "..")
)
DOMAIN = st.from_regex(r"[a-z0-9._-]{1,60}", fullmatch=True)
NEARLY = st.lists(
    st.sampled_from(["spiffe://", "SPIFFE://", "spiffe:", "/", "//", ".", "..", "a", "B", "é",
                     "%41", ":8443", "@", "?q", "#f", " ", "\n", "\0", "_", "-", "eu.example.org"]),
    max_size=8,
).map("".join)  # fmt: skip


def accepts(text: str) -> bool:
    """Whether the parser takes it; any other error than its own is a fault."""
    try:
        assert str(SpiffeId.parse(text)) == text
    except InvalidFieldError:
        return False
    return True


@given(st.one_of(NEARLY, NEARLY.map("spiffe://a".__add__), st.text(max_size=60)))
@example("spiffe://a/")
@example("spiffe://a//b")
@example("spiffe://a/b/..")
@example("spiffe://a/b\n")
@example("spiffe://a/٣")
def test_the_parser_accepts_what_the_grammar_does(text: str) -> None:
    assert accepts(text) == bool(GRAMMAR.fullmatch(text) and len(text) <= 2048)


@given(DOMAIN, st.lists(SEGMENT, max_size=6))
def test_an_id_survives_its_text(domain: str, segments: list[str]) -> None:
    made = SpiffeId(domain, "".join(f"/{segment}" for segment in segments))
    assert SpiffeId.parse(str(made)) == made


@given(DOMAIN, SEGMENT, SEGMENT, st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True))
def test_the_registrys_paths_say_who_one_is(
    domain: str, namespace: str, name: str, node_name: str
) -> None:
    node = SpiffeId.node(domain, node_name)
    assert str(node) == f"spiffe://{domain}/registry/node/{node_name}"
    assert node.role == Role("node", name=node_name)
    assert SpiffeId.operator(domain).role == Role("operator")
    gateway = SpiffeId.gateway(domain, namespace, name)
    assert str(gateway) == f"spiffe://{domain}/t/{namespace}/gateway/{name}"
    assert gateway.role == Role("gateway", namespace=namespace, name=name)
    agent = SpiffeId.agent(domain, namespace, name)
    assert agent.role == Role("agent", namespace=namespace, name=name)
    assert agent != gateway


@pytest.mark.parametrize("segment", ["", ".", "..", "a/b", "a b", "é", "a:1", "a%2fb", "a@b"])
def test_names_cannot_reach_out_of_their_segment(segment: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        SpiffeId.agent("dev", "default", segment)
    assert caught.value.field == "name"
    with pytest.raises(InvalidFieldError) as caught:
        SpiffeId.gateway("dev", segment, "a")
    assert caught.value.field == "namespace"


@pytest.mark.parametrize("path", ["", "/registry/node", "/registry/node/A", "/registry/node/a.b",
                                  f"/registry/node/{'a' * 64}", "/registry/node/1/2", "/t/a/node/b",
                                  "/t/a/agent", "/operator/1", "/Operator"])  # fmt: skip
def test_other_paths_are_nobodys_in_the_registry(path: str) -> None:
    assert SpiffeId("dev", path).role is None


@pytest.mark.parametrize("name", ["", "A", "a.b", "a/b", "a" * 64])
def test_a_nodes_name_is_a_label(name: str) -> None:
    with pytest.raises(InvalidFieldError):
        SpiffeId.node("dev", name)


def test_lengths_have_bounds() -> None:
    assert accepts("spiffe://" + "a" * 255)
    assert not accepts("spiffe://" + "a" * 256)
    longest = "spiffe://dev/" + "a" * (2048 - len("spiffe://dev/"))
    assert accepts(longest)
    assert not accepts(longest + "a")
