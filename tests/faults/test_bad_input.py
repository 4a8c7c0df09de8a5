"""Bytes that no client would send: refused, and the others don't notice."""

import contextlib
import http.client
import json
import socket
import struct

import grpc
import pytest
from fault_support import reason_of, wait_for

from agniregistry.api.v1 import registry_pb2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
REGISTER = "/agniregistry.api.v1.RegistryService/Register"


@pytest.fixture
def node(start_node):
    """A node that must answer before and after."""
    node = start_node(header_timeout_ms=1_000)
    node.register("witness")
    yield node
    assert node.process.poll() is None, node.log_text()[-2000:]
    assert node.get("witness") is not None
    assert "panicked" not in node.log_text()


def raw(node, *parts, patience=8.0):
    """Sends bytes over a plain socket; answers what came back until the end or the patience."""
    host, port = node.address.split(":")
    received = b""
    with socket.create_connection((host, int(port)), 5) as connection:
        connection.settimeout(patience)
        with contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65_536):
                received += data
    return received


def frame(kind, flags, stream, payload):
    """An HTTP/2 frame."""
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
    return head + payload


def headers_of(path):
    """A header block of a gRPC request, all literals."""

    def literal(name, value):
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    return (
        b"\x83\x86"
        + literal(b":path", path.encode())
        + literal(b":authority", b"x")
        + literal(b"content-type", b"application/grpc")
        + literal(b"te", b"trailers")
    )


def test_http2_frames_cut_at_every_byte(node):
    body = b"\0" + struct.pack(">I", 4) + b"\x0a\x02\x08\x01"
    whole = PREFACE + SETTINGS + frame(1, 4, 1, headers_of(REGISTER)) + frame(0, 1, 1, body)
    for cut in range(len(whole)):
        raw(node, whole[:cut], patience=2.0)
    assert raw(node, whole)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x00" * 64, id="zeros"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 80, id="tls"),
        pytest.param(PREFACE + b"\xff" * 200, id="oversized-frame"),
        pytest.param(PREFACE + SETTINGS + frame(0, 0, 0, b"x"), id="data-on-connection"),
        pytest.param(PREFACE + SETTINGS + frame(1, 4, 1, b"\xff" * 50), id="bad-hpack"),
        pytest.param(PREFACE + SETTINGS + frame(8, 0, 0, bytes(4)), id="window-of-zero"),
        pytest.param(PREFACE + SETTINGS + frame(9, 0, 1, b"x") * 50, id="continuations"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000 + b"\r\n", id="many-headers"),
        pytest.param(b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n", id="long-path"),
        pytest.param(
            b"POST /v1/gateways HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", id="length"
        ),
    ],
)
def test_no_protocol_at_all(node, sent):
    raw(node, sent)


def test_slow_headers_are_cut_off(node):
    host, port = node.address.split(":")
    with socket.create_connection((host, int(port)), 5) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ")
        slow.settimeout(0.2)

        def closed():
            try:
                slow.sendall(b"a")
                return not slow.recv(1024) or True
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_for("the node ends a connection whose headers never end", closed, 20)


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        pytest.param(frame(1, 0, 1, headers_of(REGISTER)), b"", id="nothing-more"),
        pytest.param(
            frame(1, 0, 1, headers_of(REGISTER)), frame(9, 0, 1, b"\x00\x01x\x01y"), id="more"
        ),
        pytest.param(frame(1, 4, 1, headers_of(REGISTER))[:20], b"", id="half-a-frame"),
    ],
)
def test_an_http2_header_block_that_never_ends_is_cut_off(node, begun, more):
    host, port = node.address.split(":")
    with socket.create_connection((host, int(port)), 5) as slow:
        slow.sendall(PREFACE + SETTINGS + begun)
        slow.settimeout(0.2)

        def closed():
            try:
                slow.sendall(more)
                while slow.recv(1024):
                    pass
            except TimeoutError:
                return False
            except OSError:
                pass
            return True

        # Well before pings would find that nobody answers them.
        wait_for("the node ends a connection whose headers never end", closed, 8)


def test_a_message_of_64_mib_is_refused(node):
    channel = grpc.insecure_channel(node.address, options=[("grpc.max_send_message_length", -1)])
    call = channel.unary_unary(REGISTER)
    with pytest.raises(grpc.RpcError) as refused:
        call(b"\x12" + bytes(64 << 20), timeout=30)
    assert refused.value.code() in (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
    )
    channel.close()


def test_an_http_body_of_64_mib_is_refused(node):
    connection = http.client.HTTPConnection(node.address, timeout=30)
    head = {"content-type": "application/json", "content-length": str(64 << 20)}
    connection.putrequest("POST", "/v1/gateways")
    for name, value in head.items():
        connection.putheader(name, value)
    connection.endheaders()
    # What is too much is still read, so that whoever sends it sees the answer.
    for _ in range(64):
        connection.send(b" " * (1 << 20))
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    "body",
    [
        b"\xff" * 40,
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x03\x0a\x01\xff",
        b"\x12\x7f",
        b"\x0b" * 200,
    ],
    ids=["varint", "length", "utf8", "short", "groups"],
)
def test_malformed_protobuf(node, body):
    channel = grpc.insecure_channel(node.address)
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(REGISTER)(body, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refused.value) == "INVALID_FIELD"
    channel.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"name": "\xff"}',
        b'{"gateway_port": 4000.5}',
        b'{"gateway_port": 1e400}',
        b'{"capacity": {"cpu": NaN}}',
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'{"name": "\\ud800"}',
        b'{"nonsense": 1}',
    ],
)
def test_malformed_json(node, body):
    connection = http.client.HTTPConnection(node.address, timeout=10)
    connection.request("POST", "/v1/gateways", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    error = json.loads(answer.read())["error"]
    assert answer.status == 400, error
    assert error["reason"] == "INVALID_FIELD"
    assert error["message"]
    connection.close()


def test_bodies_that_never_come_hold_nobody_up(node):
    host, port = node.address.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            lazy = stack.enter_context(socket.create_connection((host, int(port)), 5))
            lazy.sendall(PREFACE + SETTINGS + frame(1, 4, 1, headers_of(REGISTER)))
        for number in range(50):
            node.register(f"busy{number}")
    request = registry_pb2.GetRequest(key=None)
    with pytest.raises(grpc.RpcError) as refused:
        node.registry.Get(request, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
