"""What HTTP has to itself: the roadmap's message as it stands, statuses, strictness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from http_adapter import HttpAdapter

from agniregistry.client import Client

SEED = """{"region":"global","gateway_ip":"12.34.56.78",
"gateway_domain":"global.gateway.agnistack.online","gateway_port":4000,
"capacity":{"cpu":1,"bandwidth":20,"memory":4096,"storage":40960}}"""
NAME = "global.gateway.agnistack.online"


@pytest.fixture
def http(node_process: Any) -> Iterator[httpx.Client]:
    """Plain HTTP to the node."""
    with httpx.Client(base_url=f"http://{node_process.address}", timeout=10) as client:
        yield client


def test_the_roadmaps_message_is_a_valid_body(http: httpx.Client) -> None:
    http.delete(f"/v1/gateways/{NAME}")
    created = http.post("/v1/gateways", content=SEED)
    assert created.status_code == 201
    assert created.json()["key"] == {"namespace": "default", "kind": "gateway", "name": NAME}
    assert isinstance(created.json()["lease_id"], str)
    assert http.post("/v1/gateways", content=SEED).status_code == 200
    found = http.get(f"/v1/gateways/{NAME}")
    assert found.status_code == 200
    assert found.json()["gateway_port"] == 4000
    assert found.json()["status"] == "alive"
    assert int(found.headers["x-agni-revision"]) >= created.json()["revision"]
    listed = http.get("/v1/gateways", params={"region": "global"}).json()["instances"]
    assert NAME in {instance["name"] for instance in listed}
    gone = http.delete(f"/v1/gateways/{NAME}")
    assert gone.json()["existed"] is True
    assert http.get(f"/v1/gateways/{NAME}").status_code == 404


@pytest.mark.parametrize("own", ["gateway_", ""])
def test_a_patch_without_a_mask_leaves_no_gateway_without_an_address(
    http: httpx.Client, own: str
) -> None:
    path = f"/v1/gateways/patched.{own}example"
    http.delete(path)
    assert http.post("/v1/gateways", content=SEED.replace(NAME, path.rpartition("/")[2])).is_success
    before = http.get(path).json()
    answer = http.patch(path, json={own + "ip": "", own + "domain": "", "owner": "x"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["field"] == "spec.ip"
    after = http.get(path).json()
    assert (after["revision"], after["gateway_ip"]) == (before["revision"], "12.34.56.78")
    assert http.patch(path, json={own + "ip": ""}).is_success
    assert "gateway_ip" not in http.get(path).json()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"region":"eu","colour":"red"}', "colour"),
        ('{"region":"eu","ip":"1.2.3.4","gateway_ip":"1.2.3.4","port":1}', "ip"),
        ('{"region":"eu","name":"a","gateway_port":65536}', "spec.port"),
        ('{"region":"eu","name":"a","gateway_port":-1}', "gateway_port"),
        ('{"region":"eu","name":"a","capacity":{"gpu":1}}', "capacity.gpu"),
        ('{"region":"eu","name":"a","ttl_ms":"soon"}', "ttl_ms"),
        ('{"name":"a"}', "spec.region"),
        ("{", "body"),
        ("[]", "body"),
        ("", "body"),
    ],
)
def test_bad_bodies_name_their_field(http: httpx.Client, body: str, field: str) -> None:
    answer = http.post("/v1/gateways", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert error["field"] == field
    assert error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/gateways/nobody-here", 404),
        ("GET", "/v1/nonsense", 404),
        ("PUT", "/v1/gateways", 405),
        ("GET", "/v1/gateways?colour=red", 400),
        ("GET", "/v1/gateways?page_token=x", 400),
        ("GET", "/v1/watch?resume_token=x", 400),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/metrics", 200),
    ],
)
def test_statuses(http: httpx.Client, method: str, path: str, status: int) -> None:
    assert http.request(method, path).status_code == status


def test_conflicts_are_409(http: httpx.Client) -> None:
    body = {"name": "conflict", "region": "eu", "incarnation": 5, "expected_revision": 0}
    http.delete("/v1/agents/conflict")
    assert http.post("/v1/agents", json=body).status_code == 201
    exists = http.post("/v1/agents", json=body | {"owner": "x"})
    assert (exists.status_code, exists.json()["error"]["reason"]) == (409, "ALREADY_EXISTS")
    stale = http.post("/v1/agents", json={"name": "conflict", "region": "eu", "incarnation": 4})
    assert (stale.status_code, stale.json()["error"]["reason"]) == (409, "STALE_INCARNATION")
    http.delete("/v1/agents/conflict")


def test_members_are_the_same_over_http_and_grpc(node_process: Any) -> None:
    over_http = HttpAdapter(node_process.address)
    with Client(node_process.address) as client:
        found = over_http.members()
        assert found == client.members()
    over_http.close()
    (member,) = found.members
    assert member.client_address == node_process.address
    assert found.system_leader_id == member.node_id
    assert found.system_voters == (member.node_id,)
    assert [placement.partition for placement in found.placements] == list(range(16))
    assert {placement.leader_id for placement in found.placements} == {member.node_id}


def test_members_are_only_read(http: httpx.Client) -> None:
    assert http.post("/v1/members", json={}).status_code == 405
    assert http.get("/v1/members", params={"state": "active"}).status_code == 400
    document = http.get("/openapi.json").json()
    schema = document["components"]["schemas"]["Members"]
    answer = http.get("/v1/members").json()
    assert set(answer) == set(schema["properties"])
    for name in ("members", "placements"):
        known = schema["properties"][name]["items"]["properties"]
        assert all(set(item) == set(known) for item in answer[name])
