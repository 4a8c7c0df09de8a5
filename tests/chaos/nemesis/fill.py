"""Registers many gateways of the roadmap's size, as fast as one process can.

`python -m nemesis.fill --address host:port --records N` ends by itself, with 0 once all are there.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

from agniregistry.api.v1 import registry_pb2 as pb
from agniregistry.api.v1 import types_pb2 as types
from agniregistry.identity import Tls
from nemesis import access

BATCH_RECORDS = 1_000
THREADS = 4
ATTEMPTS = 20
METHOD = "/agniregistry.api.v1.RegistryService/Batch"


def body(first: int, count: int) -> bytes:
    """A batch of gateways, numbered."""
    capacity = types.Capacity(cpu=1, bandwidth=20, memory=4096, storage=40960)
    request = pb.BatchRequest()
    for number in range(first, first + count):
        register = request.operations.add().register
        register.key.namespace = "default"
        register.key.kind = types.KIND_GATEWAY
        register.key.name = f"{number:07}.gateway.agnistack.online"
        register.spec.region = "global"
        register.spec.ip = "12.34.56.78"
        register.spec.domain = register.key.name
        register.spec.port = 4000
        register.spec.capacity.CopyFrom(capacity)
    return request.SerializeToString()


def fill(address: str, records: int, tls: Tls | None = None) -> None:
    """Registers them all; a batch is repeated until each of its records is there."""
    with access.channel(address, tls) as channel:
        call = channel.unary_unary(METHOD)

        def load(first: int) -> None:
            request = body(first, min(BATCH_RECORDS, records - first))
            for _ in range(ATTEMPTS):
                answer = pb.BatchResponse.FromString(call(request, timeout=30))
                if all(not result.HasField("error") for result in answer.results):
                    return
            raise RuntimeError(f"the batch from {first} is refused again and again")

        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(load, range(0, records, BATCH_RECORDS)):
                pass


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="nemesis.fill")
    parser.add_argument("--address", required=True, help="host:port")
    parser.add_argument("--records", required=True, type=int)
    access.add_argument(parser)
    given = parser.parse_args()
    fill(given.address, given.records, access.tls_of(given.tls_dir))


if __name__ == "__main__":
    main()
