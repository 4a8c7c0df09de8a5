"""An in-memory registry for tests of programs that use AgniRegistry.

    from agniregistry.testing import FakeClock, FakeRegistry

    registry = FakeRegistry(clock=FakeClock())
    program_under_test(registry)              # it has the methods of `Client`
    registry.clock.advance(15_000)            # leases run out without waiting

    with registry.serve() as address:         # or over real gRPC, for either client
        client = Client(address)

It passes the same contract tests as a real node.
"""

from agniregistry.testing._clock import Clock, FakeClock, SystemClock
from agniregistry.testing._fake import FakeRegistry

__all__ = ["Clock", "FakeClock", "FakeRegistry", "SystemClock"]
