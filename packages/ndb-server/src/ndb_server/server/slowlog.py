"""Logs slow commands, without their parameters."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ndb_protocol.messages import Reply

from ..interfaces import Handler

logger = logging.getLogger("ndb_server.slowlog")


def with_slow_log(
    handlers: Mapping[str, Handler],
    threshold: float,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Handler]:
    """Return `handlers`, each of which logs when it has taken long.

    Reading the request and writing the reply are not part of it.

    Args:
        handlers: runs each command, by its name.
        threshold: how many ms are long.
        clock: returns the time in seconds, of any beginning.
    """

    def say(name: str, begin: float) -> None:
        duration = (clock() - begin) * 1000
        if duration >= threshold:
            logger.warning(
                "slow command %s took %.1f ms",
                name,
                duration,
                extra={"command": name, "duration_ms": round(duration, 3)},
            )

    def watch(name: str, handler: Handler) -> Handler:
        async def later(coming: Awaitable[Reply], begin: float) -> Reply:
            try:
                return await coming
            finally:
                say(name, begin)

        def run(params: Any, now: int) -> Reply | Awaitable[Reply]:
            begin = clock()
            try:
                reply = handler(params, now)
            except Exception:  # What fails takes its time too; who asked is told by the dispatcher.
                say(name, begin)
                raise
            if isinstance(reply, Reply):
                say(name, begin)
                return reply
            return later(reply, begin)

        return run

    return {name: watch(name, handler) for name, handler in handlers.items()}
