"""What a PromQL expression needs of the nodes: metric names, with the labels that it looks at."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import promql_parser

from agniregistry.cli.exposition import Page

FROM_PROMETHEUS = {"namespace", "job", "instance", "le"}
"""Labels that Prometheus adds to each sample, and a histogram's own."""

VARIABLE = re.compile(r"\$__rate_interval\b")


@dataclass
class Needs:
    """Names with the values that their labels are compared to; and labels of groups."""

    matched: list[tuple[str, str, str, bool]] = field(default_factory=list)
    """Metric, label, value, and whether the value is a pattern."""
    names: set[str] = field(default_factory=set)
    grouped: set[str] = field(default_factory=set)
    """Labels that something is grouped or matched by."""


def needs(expression: str) -> Needs:
    """Parses an expression, with Grafana's variables in it.

    Raises:
        ValueError: When it isn't PromQL.
    """
    found = Needs()

    def visit(node: promql_parser.Expr) -> None:
        # A range's selector is no node of its own.
        if isinstance(node, promql_parser.MatrixSelector):
            _selector(found, node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            _selector(found, node)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            found.grouped |= set(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier:
            matching = node.modifier.matching
            found.grouped |= set(matching.labels) if matching else set()

    promql_parser.walk(promql_parser.parse(VARIABLE.sub("5m", expression)), visit)
    return found


def _selector(found: Needs, selector: promql_parser.VectorSelector) -> None:
    assert selector.name, "a selector without a name reads everything"
    found.names.add(selector.name)
    patterns = (promql_parser.MatchOp.Re, promql_parser.MatchOp.NotRe)
    for matcher in selector.matchers.matchers:
        is_pattern = matcher.op in patterns
        found.matched.append((selector.name, matcher.name, matcher.value, is_pattern))


def faults(expression: str, pages: Iterable[Page], words: dict[str, set[str]]) -> list[str]:
    """What an expression wants that no node has: nothing, where all is well.

    `words` are the values that a label can have, of labels that don't show each of them always.
    """
    found = needs(expression)
    labels: dict[str, dict[str, set[str]]] = {}
    for page in pages:
        for name, samples in page.samples.items():
            known = labels.setdefault(name, {})
            for sample, _ in samples:
                for label, value in sample.items():
                    known.setdefault(label, set()).add(value)
    said = [f"there is no metric {name}" for name in sorted(found.names - set(labels))]
    for name, label, value, is_pattern in found.matched:
        if label in FROM_PROMETHEUS or name not in labels:
            continue
        values = words.get(label, labels[name].get(label, set()))
        meant = re.split(r"\|", value) if is_pattern else [value]
        if label not in labels[name]:
            said.append(f"{name} has no label {label}")
        said += [f"{name} has no {label} {each!r}" for each in meant if each not in values]
    everywhere = {label for name in found.names for label in labels.get(name, {})}
    unknown = found.grouped - everywhere - FROM_PROMETHEUS
    return said + [f"nothing here has a label {label}" for label in sorted(unknown)]
