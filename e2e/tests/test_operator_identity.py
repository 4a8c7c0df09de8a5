"""Where certificates come from: a root that is replaced, an issuer of one's own, own Secrets."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from operator_lab import SETTLE_S, Lab
from played_registry import ROOT

from agni_e2e.waiting import until
from agniregistry.identity import DevCa, SpiffeId

assert ROOT.is_dir()

SEEN_S = 60.0
"""How long it may take until a condition says what is missing."""


def apply(lab: Lab, *objects: dict[str, Any]) -> None:
    text = yaml.safe_dump_all(objects)
    lab.cluster.kubectl("-n", lab.namespace, "apply", "-f", "-", stdin=text)


def issuers(lab: Lab) -> set[str]:
    found = lab.cluster.get("certificates", "-n", lab.namespace)["items"]
    return {c["spec"]["issuerRef"]["name"] for c in found if not c["spec"].get("isCA")}


def trust(lab: Lab) -> dict[str, str]:
    data: dict[str, str] = lab.cluster.get("cm", "web-trust", "-n", lab.namespace)["data"]
    return data


def test_a_root_is_replaced(lab: Lab) -> None:
    lab.apply()
    lab.start()
    lab.settled()
    assert issuers(lab) == {"web-ca-1"}
    old = trust(lab)["ca.crt"]
    lab.apply(tls={"bootstrap": {"generation": 2}})

    def is_replaced() -> bool:
        status = lab.registry()["status"]["trust"]
        return (status["generation"], status["step"]) == (2, "Settled")

    until("the root is replaced", is_replaced, timeout_s=SETTLE_S)
    lab.settled()
    assert issuers(lab) == {"web-ca-2"}
    assert trust(lab)["ca.crt"] not in ("", old)
    names = {
        c["metadata"]["name"] for c in lab.cluster.get("issuers", "-n", lab.namespace)["items"]
    }
    assert names == {"web-self-signed", "web-ca-2"}, "the old root has gone"
    lab.apply(tls={"bootstrap": {"generation": 2}}, nodes=4)
    lab.settled()


def test_clients_get_certificates(lab: Lab) -> None:
    lab.apply(tls={"clients": [{"name": "worker", "secretName": "worker-identity"}]})
    lab.start()
    lab.settled()
    wait = ("wait", "--for=condition=Ready", "certificate/web-client-worker", "--timeout=60s")
    lab.cluster.kubectl("-n", lab.namespace, *wait)
    lab.says("CertificatesReady", "Issued", SEEN_S)
    secret = lab.cluster.get("secret", "worker-identity", "-n", lab.namespace)["data"]
    leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["tls.crt"]))
    named = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    domain = f"web.{lab.namespace}.registry.internal"
    uris = named.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == [str(SpiffeId.agent(domain, "default", "worker"))]
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(trust(lab)["ca.crt"].encode()))
    lab.apply()
    until(
        "the certificate is no longer kept",
        lambda: "certificates/web-client-worker" not in lab.children(),
        timeout_s=SEEN_S,
    )
    lab.settled()


def test_an_issuer_of_the_users(lab: Lab) -> None:
    root = {
        "isCA": True,
        "commonName": "shop",
        "secretName": "shop-ca",
        "privateKey": {"algorithm": "ECDSA", "size": 256},
        "issuerRef": {"name": "shop-self-signed"},
    }
    apply(
        lab,
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Issuer",
            "metadata": {"name": "shop-self-signed"},
            "spec": {"selfSigned": {}},
        },
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": {"name": "shop-ca"},
            "spec": root,
        },
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Issuer",
            "metadata": {"name": "shop"},
            "spec": {"ca": {"secretName": "shop-ca"}},
        },
    )
    given = {"issuerRef": {"name": "shop"}, "trustConfigMap": {"name": "shop-roots"}}
    lab.apply(tls=given)
    lab.start()
    lab.says("Stalled", "TrustMissing", SEEN_S)
    wait = ("wait", "--for=condition=Ready", "certificate/shop-ca", "--timeout=30s")
    lab.cluster.kubectl("-n", lab.namespace, *wait)
    secret = lab.cluster.get("secret", "shop-ca", "-n", lab.namespace)["data"]
    roots = base64.b64decode(secret["tls.crt"]).decode()
    apply(
        lab,
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "shop-roots"},
            "data": {"ca.crt": roots},
        },
    )
    lab.settled()
    assert issuers(lab) == {"shop"}
    assert trust(lab) == {"ca.crt": roots}


def secret_of(name: str, ca: DevCa, identity: SpiffeId, hosts: list[str]) -> dict[str, Any]:
    leaf = ca.issue(identity, hosts)
    files = {"tls.crt": leaf.cert_file, "tls.key": leaf.key_file, "ca.crt": leaf.bundle_file}
    data = {key: base64.b64encode(path.read_bytes()).decode() for key, path in files.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name},
        "data": data,
    }


def test_secrets_of_ones_own(lab: Lab, tmp_path: Path) -> None:
    ca = DevCa.init(tmp_path / "ca", "shop.example.org")
    domain = ca.trust_domain
    lab.apply(
        trustDomain=domain, tls={"secretRefs": {"nodePrefix": "mine", "operator": "mine-operator"}}
    )
    lab.start()
    assert "mine-operator" in lab.says("Stalled", "IdentityMissing", SEEN_S)["message"]
    apply(lab, secret_of("mine-operator", ca, SpiffeId.operator(domain), ["operator"]))
    missing = lab.says("CertificatesReady", "SecretMissing", SEEN_S)
    assert "the Secret mine-0 isn't there" in missing["message"]
    host = f"web-nodes.{lab.namespace}.svc"
    nodes = [
        secret_of(f"mine-{i}", ca, SpiffeId.node(domain, f"web-{i}"), [f"web-{i}-0.{host}"])
        for i in range(3)
    ]
    without_root = {key: value for key, value in nodes[2]["data"].items() if key != "ca.crt"}
    apply(lab, *nodes[:2], nodes[2] | {"data": without_root})
    until(
        "the key that is missing is named",
        lambda: "the Secret mine-2 has no ca.crt" in lab.condition("CertificatesReady")["message"],
        timeout_s=SEEN_S,
    )
    apply(lab, *nodes)
    lab.says("CertificatesReady", "Issued", SEEN_S)
    lab.settled()
    assert not lab.cluster.get("certificates", "-n", lab.namespace)["items"]
