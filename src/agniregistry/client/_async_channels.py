"""`_channels` for asyncio: channels whose state can be asked, and whose closing is awaited."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from agniregistry.client._channels import Done, Options, SendOptions, Warmup, was_reached


class AsyncFlavour:
    """Channels of the async client."""

    def __init__(self) -> None:
        self._closing: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None]] = set()

    def open(
        self, address: str, credentials: grpc.ChannelCredentials | None, options: Options
    ) -> grpc.aio.Channel:
        """Makes a channel."""
        if credentials is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, credentials, options=options)

    def warm(self, channel: grpc.aio.Channel) -> Warmup:
        """Has it connect."""
        return _AsyncWarmup(channel)

    def discard(self, channel: grpc.aio.Channel) -> None:
        """Closes it in a task; `finished` waits for that."""
        task = asyncio.get_running_loop().create_task(channel.close(grace=None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def send(
        self, channel: grpc.aio.Channel, path: str, request: bytes, options: SendOptions, done: Done
    ) -> None:
        """Calls in a task, which `finished` ends."""

        async def ask() -> None:
            # Nobody waits for it: what could not be had is asked for later.
            answer, reached = None, False
            try:
                method: Any = channel.unary_unary(path, None, None)
                answer = await method(request, timeout=options.timeout_s, metadata=options.metadata)
                reached = True
            except grpc.aio.AioRpcError as failure:
                reached = was_reached(failure.code())
            except grpc.aio.UsageError:  # gRPC's word for a closed channel
                reached = False
            done(answer, reached)

        task = asyncio.get_running_loop().create_task(ask(), name="agniregistry-routing")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def finished(self) -> None:
        """Returns when nothing is asked any more and every discarded channel is closed."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, *self._closing, return_exceptions=True)


class _AsyncWarmup:
    """Asks for the channel's state."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.ready()

    def ready(self) -> bool:
        state = self._channel.get_state(try_to_connect=True)
        return state is grpc.ChannelConnectivity.READY

    def stop(self) -> None:
        """Nothing runs in the background."""
