"""Every example is taken by the API server."""

from __future__ import annotations

from typing import Any

import yaml
from operator_lab import Lab
from played_registry import ROOT

from agniregistry_operator.model.desired import desired_of

EXAMPLES = ROOT / "examples"


def registries(text: str) -> list[dict[str, Any]]:
    return [m for m in yaml.safe_load_all(text) if m and m["kind"] == "AgniRegistry"]


def test_examples_are_taken(lab: Lab) -> None:
    plain = [path.read_text() for path in sorted(EXAMPLES.glob("*.yaml"))]
    overlays = sorted(path.parent for path in EXAMPLES.glob("kustomize/*/kustomization.yaml"))
    built = [lab.cluster.kubectl("kustomize", str(folder)) for folder in overlays]
    assert len(plain) == 2
    assert len(built) == 3
    for text in (*plain, *built):
        for found in registries(text):
            arguments = ("apply", "--dry-run=server", "-n", lab.namespace, "-o", "json", "-f", "-")
            answer = lab.cluster.kubectl(*arguments, stdin=yaml.safe_dump(found))
            resource = yaml.safe_load(answer)
            assert desired_of(resource, "image").nodes == found["spec"]["nodes"]


def test_gitops_examples_name_what_is_there() -> None:
    for path in (EXAMPLES / "gitops").glob("*.yaml"):
        for found in yaml.safe_load_all(path.read_text()):
            text = yaml.safe_dump(found)
            for folder in ("charts/agniregistry", "examples/kustomize/production"):
                if folder in text:
                    assert (ROOT / folder).is_dir()
