"""Every name that the operator gives: objects, labels, annotations, paths, ports."""

from __future__ import annotations

GROUP = "agnistack.online"
VERSION = "v1alpha1"
PLURAL = "agniregistries"
KIND = "AgniRegistry"
MANAGER = "agniregistry-operator"

LABEL_REGISTRY = f"{GROUP}/registry"
LABEL_NODE = f"{GROUP}/node"
LABEL_INDEX = f"{GROUP}/index"

ANNOTATION_HASH = f"{GROUP}/applied-hash"
ANNOTATION_TEMPLATE = f"{GROUP}/template-hash"
ANNOTATION_ZONE = f"{GROUP}/zone"
ANNOTATION_SEEDS = f"{GROUP}/seeds"
ANNOTATION_LIFE = f"{GROUP}/life"
ANNOTATION_PAUSED = f"{GROUP}/paused"
ANNOTATION_REPLACE = f"{GROUP}/replace-node"
ANNOTATION_REMOVE = f"{GROUP}/remove-node"
ANNOTATION_ADOPT = f"{GROUP}/adopt-cluster"
ANNOTATION_CLUSTERS = f"{GROUP}/clusters"
ANNOTATION_APPROVE = f"{GROUP}/approve-update"

PORT_CLIENTS = 7400
PORT_PEERS = 7401
PORT_HEALTH = 7402

CONFIG_DIR = "/etc/agniregistry/config"
TLS_DIR = "/etc/agniregistry/tls"
VOLUME_DIR = "/var/lib/agniregistry"
CLAIM = "data"


def node(registry: str, index: int) -> str:
    """A node's name, and its StatefulSet's."""
    return f"{registry}-{index}"


def index_of(registry: str, name: str) -> int | None:
    """The index of a node's name; None if it is none of this registry."""
    prefix, dash, number = name.rpartition("-")
    is_one = dash and prefix == registry and number.isascii() and number.isdigit()
    return int(number) if is_one and str(int(number)) == number else None


def pod(registry: str, index: int) -> str:
    """A node's pod."""
    return f"{node(registry, index)}-0"


def claim(registry: str, index: int) -> str:
    """A node's volume claim."""
    return f"{CLAIM}-{pod(registry, index)}"


def headless(registry: str) -> str:
    """The Service that names each pod."""
    return f"{registry}-nodes"


def config(registry: str) -> str:
    """The ConfigMap with the nodes' settings."""
    return f"{registry}-config"


def trust(registry: str) -> str:
    """The ConfigMap with the roots."""
    return f"{registry}-trust"


def tls_secret(registry: str, index: int) -> str:
    """The Secret with a node's certificate."""
    return f"{node(registry, index)}-tls"


def given_secret(prefix: str, index: int) -> str:
    """The Secret with a node's certificate that somebody else makes (secretRefs)."""
    return f"{prefix}-{index}"


def client(registry: str, name: str) -> str:
    """The certificate of a client."""
    return f"{registry}-client-{name}"


def client_secret(registry: str, name: str) -> str:
    """The Secret with a client's certificate, where none is named."""
    return f"{client(registry, name)}-tls"


def is_own_secret(registry: str, secret: str) -> bool:
    """Whether a Secret has the name of one with a node's certificate, or with a root."""
    if secret.endswith("-tls"):
        return index_of(registry, secret.removesuffix("-tls")) is not None
    return index_of(f"{registry}-ca", secret) is not None


def self_signed(registry: str) -> str:
    """The issuer of roots."""
    return f"{registry}-self-signed"


def root(registry: str, generation: int) -> str:
    """The certificate of a root, its Secret, and the issuer that uses it."""
    return f"{registry}-ca-{generation}"


def pod_host(registry: str, namespace: str, index: int) -> str:
    """The name under which a node is reached."""
    return f"{pod(registry, index)}.{headless(registry)}.{namespace}.svc"


def peer_address(registry: str, namespace: str, index: int) -> str:
    """host:port for other nodes."""
    return f"{pod_host(registry, namespace, index)}:{PORT_PEERS}"


def client_address(registry: str, namespace: str, index: int) -> str:
    """host:port for clients."""
    return f"{pod_host(registry, namespace, index)}:{PORT_CLIENTS}"
