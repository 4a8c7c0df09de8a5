"""Gets one record over and over until its input ends, then prints how long each took, in ms.

A process of its own: within the test's it would wait for the test's other threads as well.
"""

import json
import sys
import threading
import time

import grpc
from fault_support import key_of

from agniregistry.api.v1 import registry_pb2, registry_pb2_grpc


def main() -> None:
    """`getting.py ADDRESS NAME`."""
    address, name = sys.argv[1:]
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    request = registry_pb2.GetRequest(key=key_of(name))
    took_ms = []
    with grpc.insecure_channel(address) as channel:
        registry = registry_pb2_grpc.RegistryServiceStub(channel)
        registry.Get(request, timeout=10)
        print("ready", flush=True)
        while not ended.is_set():
            start = time.perf_counter()
            registry.Get(request, timeout=10)
            took_ms.append((time.perf_counter() - start) * 1000)
    print(json.dumps(took_ms))


if __name__ == "__main__":
    main()
