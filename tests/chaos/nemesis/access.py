"""How the clients of a run reach its nodes: in plaintext, or as the operator over mTLS."""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from agniregistry.identity import DevCa, SpiffeId, Tls


def make_certificates(folder: Path, addresses: Mapping[str, str]) -> None:
    """A CA in a folder, with a certificate for each node, by name, and one for the clients."""
    authority = DevCa.init(folder)
    for name, address in addresses.items():
        authority.issue(SpiffeId.node(authority.trust_domain, name), [address])
    authority.issue(SpiffeId.operator(authority.trust_domain))


def tls_of(folder: Path | None) -> Tls | None:
    """What a client is given; none in plaintext."""
    if folder is None:
        return None
    return Tls(folder / "bundle.pem", folder / "operator.pem", folder / "operator-key.pem")


def add_argument(parser: argparse.ArgumentParser) -> None:
    """`--tls-dir`, for `tls_of`."""
    parser.add_argument("--tls-dir", type=Path, help="the CA's folder; plaintext without it")


def https(folder: Path | None) -> ssl.SSLContext | None:
    """For HTTPS; none in plaintext."""
    if folder is None:
        return None
    context = ssl.create_default_context(cafile=folder / "bundle.pem")
    context.load_cert_chain(folder / "operator.pem", folder / "operator-key.pem")
    return context


def channel(
    address: str, tls: Tls | None = None, options: Sequence[tuple[str, int]] = ()
) -> grpc.Channel:
    """A bare gRPC channel."""
    if tls is None:
        return grpc.insecure_channel(address, options=options)
    root, certificate, key = (Path(file).read_bytes() for file in tls.files)
    credentials = grpc.ssl_channel_credentials(root, key, certificate)
    return grpc.secure_channel(address, credentials, options=options)
