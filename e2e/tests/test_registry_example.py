"""The way of somebody new: install the chart, apply the example, register a gateway, find it.

And what must be so then: who is refused, what a node may see, and that nothing goes on.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from registry_lab import (
    OPERATOR_SPACE,
    PYTHON,
    RELEASE,
    Registry,
    client_certificate,
    make_namespace,
    real_machine,
    restricted_pod,
)

from agni_e2e import Cluster, places
from agni_e2e.waiting import until

pytestmark = pytest.mark.full

EXAMPLES = places.REPOSITORY / "examples"
NODES = 3
IMPOSTOR = "impostor"
QUIET_S = float(os.environ.get("AGNI_E2E_QUIET_S", "300"))
CPU_SHARE_MAX = 0.01
RESIDENT_BYTES_MAX = 100 << 20
GATEWAY: dict[str, Any] = {
    "region": "global",
    "gateway_ip": "12.34.56.78",
    "gateway_domain": "global.gateway.agnistack.online",
    "gateway_port": 4000,
    "capacity": {"cpu": 1, "bandwidth": 20, "memory": 4096, "storage": 40960},
}
"""The roadmap's message, as it is there."""
CALL = """
import http.client, json, ssl, sys

def call(where, folder, method, path, body=None):
    context = ssl.create_default_context(cafile="/etc/client/ca.crt")
    if folder:
        context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
    host, port = where.split(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
    connection.request(method, path, body and json.dumps(body))
    response = connection.getresponse()
    return [response.status, json.load(response)]

def refused(*arguments):
    try:
        return call(*arguments)
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected) as error:
        return ["refused", str(error)]

"""


class Client:
    """A pod with a certificate of the registry's, one of another registry's, and a false one."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def call(self, words: str) -> Any:
        """What an expression of `CALL` answers, evaluated in the pod."""
        script = f"{CALL}\nprint(json.dumps({words}))\n"
        return json.loads(self.registry.python("client", script))

    def start(self) -> None:
        names = ("client", "stranger", IMPOSTOR)
        mounts = [{"name": name, "mountPath": f"/etc/{name}"} for name in names]
        container = {
            "command": [PYTHON, "-c", "import signal; signal.pause()"],
            "volumeMounts": mounts,
        }
        volumes = [
            {"name": name, "secret": {"secretName": f"{name}-tls", "defaultMode": 0o440}}
            for name in names
        ]
        self.registry.create(restricted_pod("client", container, volumes=volumes))
        self.registry.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=90s")


@pytest.fixture(scope="module")
def example(operated: Cluster, tell: Callable[[str], None]) -> Iterator[Registry]:
    """The example with three zones, as it is."""
    registry = Registry(operated, "shop", "registry")
    make_namespace(operated, registry.namespace)
    began = time.monotonic()
    registry.kubectl("apply", "-f", str(EXAMPLES / "three-zones.yaml"))
    registry.settled()
    tell(
        f"three nodes in three zones, from kubectl apply to Ready: {time.monotonic() - began:.0f} s"
    )
    yield registry
    registry.delete()


@pytest.fixture(scope="module")
def client(example: Registry) -> Iterator[Client]:
    """Somebody with a certificate, with one that a second registry's issuer made, and with one of
    this registry's issuer that is a node's by its name, in another trust domain."""
    other = Registry(example.cluster, "elsewhere", "registry")
    make_namespace(example.cluster, other.namespace)
    other.kubectl("apply", "-f", str(EXAMPLES / "single.yaml"))
    single = yaml.safe_load((EXAMPLES / "single.yaml").read_text())["metadata"]["name"]
    other.name = single
    other.settled()
    other.trust_domain = f"{single}.{other.namespace}.registry.internal"
    other.create(client_certificate(other, "stranger"))
    false = ["spiffe://elsewhere.example/node/registry-1"]
    example.create(
        client_certificate(example, "client"), client_certificate(example, IMPOSTOR, uris=false)
    )
    other.kubectl("wait", "--for=create", "secret/stranger-tls", "--timeout=30s")
    example.kubectl("wait", "--for=create", "secret/client-tls", "--timeout=30s")
    example.kubectl("wait", "--for=create", f"secret/{IMPOSTOR}-tls", "--timeout=30s")
    secret = other.get("secret", "stranger-tls")
    kept = {key: secret[key] for key in ("apiVersion", "kind", "type", "data")}
    meta = {"name": "stranger-tls", "namespace": example.namespace}
    example.create(kept | {"metadata": meta})
    client = Client(example)
    client.start()
    yield client
    other.delete()


def test_zones_are_spread_over(example: Registry) -> None:
    status = example.status()
    assert {node["zone"] for node in status["nodes"]} == {"zone-1", "zone-2", "zone-3"}
    assert len({example.machine_of(index) for index in range(NODES)}) == NODES


def test_gateway_is_registered_and_found_at_every_node(client: Client) -> None:
    registry = client.registry
    service = registry.service_address
    made = client.call(f"call({service!r}, '/etc/client', 'POST', '/v1/gateways', {GATEWAY!r})")
    assert made[0] in (200, 201), made
    path = "/v1/discover?kind=gateway&region=global"
    for index in range(NODES):
        node = registry.client_address(index)
        status, found = client.call(f"call({node!r}, '/etc/client', 'GET', {path!r})")
        assert status == 200, found
        assert GATEWAY["gateway_domain"] in json.dumps(found)


def test_who_has_no_certificate_of_this_registry_is_refused(client: Client) -> None:
    service = client.registry.service_address
    for folder in ("", "/etc/stranger", f"/etc/{IMPOSTOR}"):
        answer = client.call(f"refused({service!r}, {folder!r}, 'GET', '/v1/status')")
        assert answer[0] == "refused", (folder, answer)
    assert client.call(f"call({service!r}, '/etc/client', 'GET', '/v1/status')")[0] == 200


def test_who_is_no_node_is_no_peer(client: Client) -> None:
    """A client of this registry, another registry's, a node of another domain, and nobody."""
    peers = client.registry.client_address(0).replace(":7400", ":7401")
    for folder in ("/etc/client", "/etc/stranger", f"/etc/{IMPOSTOR}", ""):
        answer = client.call(f"refused({peers!r}, {folder!r}, 'GET', '/')")
        assert answer[0] == "refused", (folder, answer)
    log = client.registry.kubectl("logs", "registry-0-0")
    refused = {json.loads(line).get("reason") for line in log.splitlines() if "handshake" in line}
    assert refused >= {"identity", "untrusted", "trust_domain", "no_certificate"}, refused


def test_nodes_have_their_own_keys_and_no_others(example: Registry) -> None:
    script = (
        "import os, ssl, urllib.request, urllib.error\n"
        "print(sorted(f for f in os.listdir('/etc/agniregistry/tls') if f[0] != '.'))\n"
        "print(os.path.exists('/var/run/secrets/kubernetes.io'))\n"
        "url = 'https://kubernetes.default.svc/api/v1/namespaces/shop/secrets/registry-1-tls'\n"
        "trust = ssl._create_unverified_context()\n"
        "try: print(urllib.request.urlopen(url, context=trust).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
    )
    for index in range(NODES):
        spec = example.pod(index)["spec"]
        assert spec["automountServiceAccountToken"] is False
        text = json.dumps(spec["volumes"])
        assert re.findall(r'"registry-\d+-tls"', text) == [f'"registry-{index}-tls"']
        assert "serviceAccountToken" not in text
        said = example.python(f"registry-{index}-0", script).splitlines()
        assert said == ["['ca.crt', 'tls.crt', 'tls.key']", "False", "403"]


def test_get_tells_at_a_glance(example: Registry, tell: Callable[[str], None]) -> None:
    head, line = example.kubectl("get", "agnireg").splitlines()
    assert head.split() == ["NAME", "NODES", "READY", "LEADERS", "STATUS", "VERSION", "AGE"]
    words = r"registry +3 +3 +\d+/\d+/\d+ +all 3 nodes are ready and balanced +0\.1\.0 +\w+"
    assert re.fullmatch(words, line), line
    tell(line)


def test_same_manifest_from_somebody_else_changes_nothing(example: Registry) -> None:
    """`kubectl diff` fails where there is a difference."""
    path = str(EXAMPLES / "three-zones.yaml")
    example.kubectl("diff", "-f", path)
    example.kubectl("diff", "--server-side", "--field-manager=gitops", "-f", path)
    before = example.resource()["metadata"]["generation"]
    example.kubectl("apply", "--server-side", "--field-manager=gitops", "-f", path)
    found = example.resource()["metadata"]
    assert found["generation"] == before
    assert not found.get("finalizers")
    example.kubectl("diff", "--server-side", "--field-manager=gitops", "-f", path)


def operators_writes(cluster: Cluster, begin: int) -> list[str]:
    """What the operator has written since a byte of the audit log, its lease apart."""
    account = f"system:serviceaccount:{OPERATOR_SPACE}:{RELEASE}"
    found = []
    with cluster.audit_log.open() as log:
        log.seek(begin)
        for line in log:
            entry = json.loads(line)
            reference = entry.get("objectRef") or {}
            is_write = entry["verb"] not in ("get", "list", "watch")
            if is_write and entry["user"]["username"] == account:
                found.append(f"{entry['verb']} {reference.get('resource')}/{reference.get('name')}")
    return [each for each in found if not each.endswith(f" leases/{RELEASE}")]


def versions(registry: Registry) -> dict[str, str]:
    """Each object of a registry's, with its version."""
    kinds = (
        "agnireg,statefulsets,pods,persistentvolumeclaims,services,configmaps,serviceaccounts,"
        "poddisruptionbudgets,networkpolicies,issuers,certificates,certificaterequests,events"
    )
    items = registry.get(kinds)["items"]
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for item in items
    }


def test_settled_registry_is_left_in_peace(
    example: Registry, client: Client, tell: Callable[[str], None]
) -> None:
    cluster = example.cluster
    pods = cluster.get("pods", "-n", OPERATOR_SPACE)["items"]
    where = {p["metadata"]["name"]: real_machine(cluster, p["spec"]["nodeName"]) for p in pods}
    example.settled()
    before, begin = versions(example), cluster.audit_log.stat().st_size
    cpu_s = {name: machine.cpu_s(name) for name, machine in where.items()}
    time.sleep(QUIET_S)
    used_s = {name: machine.cpu_s(name) - cpu_s[name] for name, machine in where.items()}
    resident = {name: machine.resident_bytes(name) for name, machine in where.items()}
    share, bytes_max = max(used_s.values()) / QUIET_S, max(resident.values())
    tell(
        f"quiet for {QUIET_S:.0f} s: the operator used {share:.2%} of a core, "
        f"{bytes_max / (1 << 20):.0f} MiB resident"
    )
    assert operators_writes(cluster, begin) == []
    assert versions(example) == before
    assert share < CPU_SHARE_MAX
    assert bytes_max < RESIDENT_BYTES_MAX


def test_wake_after_hibernation(example: Registry, client: Client) -> None:
    """All pods go and all volumes stay; what was registered is there afterwards."""
    example.patch("agnireg", example.name, {"spec": {"hibernate": True}})
    until(
        "no node runs",
        lambda: not any(example.pod(index) for index in range(NODES)),
        timeout_s=120.0,
    )
    example.patch("agnireg", example.name, {"spec": {"hibernate": False}})
    example.settled()
    service = example.service_address
    path = "/v1/discover?kind=gateway&region=global"
    found = client.call(f"call({service!r}, '/etc/client', 'GET', {path!r})")
    assert GATEWAY["gateway_domain"] in json.dumps(found)
