"""Issuers and certificates, as cert-manager takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agniregistry_operator import names
from agniregistry_operator.manifests.base import Manifest, child, labels
from agniregistry_operator.model.desired import Client, Desired, TlsMode, dns_names

ROOT_DURATION = "87600h"
"""Ten years: roots are replaced by a generation, not by time."""
ROOT_RENEW_BEFORE = "8760h"
USAGES = ("digital signature", "server auth", "client auth")
CLIENT_USAGES = ("digital signature", "client auth")


def issuer_of(desired: Desired, generation: int) -> dict[str, str]:
    """The issuerRef of leaves under one root."""
    if desired.tls.mode is TlsMode.ISSUER:
        return dict(desired.tls.issuer)
    name = names.root(desired.name, generation)
    return {"name": name, "kind": "Issuer", "group": "cert-manager.io"}


def self_signed_issuer(desired: Desired) -> Manifest:
    """It issues roots and nothing else."""
    name = names.self_signed(desired.name)
    return child(desired, "Issuer", name, {"spec": {"selfSigned": {}}})


def root_objects(desired: Desired, generation: int) -> list[Manifest]:
    """A root and the issuer that uses it."""
    name = names.root(desired.name, generation)
    issuer = {"name": names.self_signed(desired.name), "kind": "Issuer", "group": "cert-manager.io"}
    certificate = {
        "secretName": name,
        "secretTemplate": {"labels": labels(desired)},
        "isCA": True,
        "commonName": f"{desired.name} root {generation}",
        "subject": {"organizations": [f"AgniRegistry {desired.namespace}"]},
        "duration": ROOT_DURATION,
        "renewBefore": ROOT_RENEW_BEFORE,
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Never"},
        "usages": ["cert sign", "crl sign", "digital signature"],
        "issuerRef": issuer,
    }
    return [
        child(desired, "Certificate", name, {"spec": certificate}),
        child(desired, "Issuer", name, {"spec": {"ca": {"secretName": name}}}),
    ]


def node_certificate(desired: Desired, index: int, issuer: Mapping[str, str]) -> Manifest:
    """A node's certificate: its SPIFFE ID, and every name under which it is reached."""
    registry, namespace = desired.name, desired.namespace
    host = names.pod_host(registry, namespace, index)
    service = f"{registry}.{namespace}.svc"
    hosts = [
        *(host, f"{host}.cluster.local"),
        *(service, f"{service}.cluster.local", f"{registry}.{namespace}", registry),
        *dns_names(desired),
    ]
    path = f"/registry/node/{desired.node(index)}"
    spec = {
        **_leaf(desired, names.tls_secret(registry, index), path, issuer),
        "usages": list(USAGES),
        "dnsNames": hosts,
    }
    return child(desired, "Certificate", desired.node(index), {"spec": spec})


def client_certificate(desired: Desired, client: Client, issuer: Mapping[str, str]) -> Manifest:
    """A client's certificate: its SPIFFE ID alone, because nobody connects to a client."""
    leaf = _leaf(desired, client.secret, client.path, issuer)
    spec = {**leaf, "usages": list(CLIENT_USAGES)}
    return child(desired, "Certificate", names.client(desired.name, client.name), {"spec": spec})


def _leaf(desired: Desired, secret: str, path: str, issuer: Mapping[str, str]) -> Manifest:
    """What certificates of nodes and clients share."""
    return {
        "secretName": secret,
        "secretTemplate": {"labels": labels(desired)},
        "duration": desired.tls.duration,
        "renewBefore": desired.tls.renew_before,
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "subject": {"organizations": [f"AgniRegistry {desired.name}"]},
        "uris": [f"spiffe://{desired.trust_domain}{path}"],
        "issuerRef": dict(issuer),
    }


def operator_request(
    desired: Desired, name: str, csr_base64: str, issuer: Mapping[str, str]
) -> dict[str, Any]:
    """A request for the operator's own certificate, whose key never leaves its memory."""
    spec = {
        "request": csr_base64,
        "duration": desired.tls.duration,
        "usages": list(USAGES),
        "issuerRef": dict(issuer),
    }
    return child(desired, "CertificateRequest", name, {"spec": spec})


def operator_id(desired: Desired) -> str:
    """The operator's SPIFFE ID in a registry's trust domain."""
    return f"spiffe://{desired.trust_domain}/operator"
