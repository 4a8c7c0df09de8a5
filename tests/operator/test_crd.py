"""The CRD by its structure: what the API server needs, and what people see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agniregistry_node.config import fields
from agniregistry_operator.model.desired import desired_of
from agniregistry_operator.model.observed import Observed
from agniregistry_operator.planning.planner import plan

ROOT = Path(__file__).resolve().parents[2]
CRD = yaml.safe_load((ROOT / "crds/agniregistries.agnistack.online.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def test_the_schema_is_structural() -> None:
    for path, schema in walk(SCHEMA):
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        both = "properties" in schema and "additionalProperties" in schema
        assert not both, path
        assert not ({"$ref", "anyOf", "oneOf", "uniqueItems"} & set(schema)), path


def test_every_field_says_what_it_is() -> None:
    silent = [
        path for path, schema in walk(SCHEMA)
        if not path.endswith("[]") and path.count(".") > 1 and not schema.get("description")
    ]  # fmt: skip
    assert not silent


def test_every_rule_has_words_for_people() -> None:
    rules = [
        (path, rule)
        for path, schema in walk(SCHEMA)
        for rule in schema.get("x-kubernetes-validations", [])
    ]
    assert len(rules) > 15
    for path, rule in rules:
        assert rule["message"][0].islower(), path
        assert not rule["message"].endswith("."), path


def test_names_scale_and_columns() -> None:
    names = CRD["spec"]["names"]
    assert names["shortNames"] == ["agnireg"]
    assert names["categories"] == ["agni"]
    assert VERSION["subresources"]["scale"]["specReplicasPath"] == ".spec.nodes"
    columns = [column["name"] for column in VERSION["additionalPrinterColumns"]]
    assert columns == ["Nodes", "Ready", "Leaders", "Status", "Version", "Age"]
    for column in VERSION["additionalPrinterColumns"]:
        schema = SCHEMA
        for part in column["jsonPath"].strip(".").split("."):
            if part == "metadata":
                break
            schema = schema["properties"][part]


def test_conditions_are_a_map() -> None:
    conditions = SCHEMA["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_config_has_the_nodes_settings_and_none_that_the_operator_makes() -> None:
    given = set(SCHEMA["properties"]["spec"]["properties"]["config"]["properties"])
    known = {spec.name for spec in fields()}
    assert given < known
    assert "queue_limit" in given
    assert not given & {"data_dir", "listen", "name", "seeds", "insecure", "cluster_id", "zone"}


def defaulted(schema: dict[str, Any], given: Any) -> Any:
    """What the API server makes of it."""
    if not isinstance(given, dict):
        return given
    found = dict(given)
    for name, part in schema.get("properties", {}).items():
        if name not in found and "default" in part:
            found[name] = part["default"]
        if name in found:
            found[name] = defaulted(part, found[name])
    return found


def resource(**spec: Any) -> dict[str, Any]:
    given = {"nodes": 3, "storage": {"size": "1Gi"}} | spec
    meta = {"name": "web", "namespace": "shop", "uid": "0" * 8, "generation": 4}
    return {"metadata": meta, "spec": defaulted(SCHEMA["properties"]["spec"], given)}


def test_defaults_are_those_of_the_operator() -> None:
    """Read with and without the API server's defaults, a resource means the same."""
    bare = resource()
    bare["spec"] = {"nodes": 3, "storage": {"size": "1Gi"}}
    with_defaults = desired_of(resource(), "image")
    without = desired_of(bare, "image")
    assert with_defaults.__dict__ | {"spec": {}} == without.__dict__ | {"spec": {}}


def test_the_status_fits_the_schema() -> None:
    made = plan(Observed(), desired_of(resource(), "image"), 1000.0)
    known = SCHEMA["properties"]["status"]["properties"]
    plain = made.status.to_dict()
    assert set(plain) <= set(known)
    for condition in plain["conditions"]:
        assert set(condition) <= set(known["conditions"]["items"]["properties"])
    for node in plain["nodes"]:
        assert set(node) <= set(known["nodes"]["items"]["properties"])
    assert set(plain["operation"]) <= set(known["operation"]["properties"])


def test_annotations_are_read() -> None:
    found = resource()
    found["metadata"]["annotations"] = {
        "agnistack.online/paused": "true",
        "agnistack.online/replace-node": "web-1",
    }
    desired = desired_of(found, "image")
    assert desired.paused
    assert desired.replace == "web-1"


def test_a_cluster_is_adopted_until_the_registry_is_founded() -> None:
    earlier, found = "a" * 32, resource()
    found["metadata"]["annotations"] = {"agnistack.online/adopt-cluster": earlier}
    assert desired_of(found, "image").cluster_id == earlier
    assert desired_of(found | {"status": {"clusterId": "b" * 32}}, "image").cluster_id == "0" * 8
    gone = resource() | {"status": {"clusterId": earlier, "adopted": earlier}}
    assert desired_of(gone, "image").cluster_id == earlier, "the annotation may go again"
    found["metadata"]["annotations"] = {"agnistack.online/adopt-cluster": "the old one"}
    with pytest.raises(ValueError, match="32 hexadecimal"):
        desired_of(found, "image")


def test_a_duration_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="such as 10m"):
        desired_of(resource(repair={"after": "soon"}), "image")
