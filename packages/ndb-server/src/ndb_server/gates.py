"""Waits in a coroutine for what replies wait for otherwise."""

import asyncio
from collections.abc import Iterable

from .interfaces import CommitGate, PendingBatch


class _TaskWaiter:
    gates: Iterable[CommitGate] = ()

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def batch_done(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


async def finished(batch: PendingBatch) -> bool | None:
    """Wait until a batch is committed or undone; return whether it is committed."""
    if batch.committed is None:
        waiter = _TaskWaiter()
        batch.waiters[waiter] = None
        await waiter.future
    return batch.committed
