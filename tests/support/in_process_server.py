"""A server in this process, so that a test can break it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ndb_server.server.server import Options, Server


@asynccontextmanager
async def running(options: Options) -> AsyncIterator[str]:
    """Run a server; yield its URL."""
    server = Server(options)
    url = await server.start()
    try:
        yield url
    finally:
        await server.stop()
