"""The life of one session, on a server that this program starts and stops itself."""

import asyncio
import sys

from ndb.sessionclient import SessionClient


async def main() -> None:
    print("Start a server: ndb-server --port 0")
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ndb_server", "--port", "0"), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    uri = (await server.stdout.readline()).decode().strip()
    if not uri:
        sys.exit(f"the server did not start; it exited with status {await server.wait()}")
    print(f"  it listens on {uri}\n")
    try:
        await use_a_session(uri)
    finally:
        server.terminate()
        status = await server.wait()
    print(f"Stop the server with SIGTERM: it exits with status {status}")


async def use_a_session(uri: str) -> None:
    async with SessionClient(uri) as client:
        print("Create a session that ends an hour after it was last read")
        session = await client.create_session(
            durationSeconds=3600, deleteSession=True, extendOnGet=True
        )
        print(f"  is it valid? {session.isValid}\n")

        values = {"user": "ada", "cart": ["tea", "cup"]}
        print(f"Set two keys: {values}")
        await client.set(values, session)
        print(f"  it has {await client.count(session)} keys: {await client.keys(session)}\n")

        print("Get one of them")
        print(f"  {await client.get(['cart'], session)}\n")

        print("Show when it expires")
        info = await client.session_info(session)
        for name, value in info["expiry"].items():
            print(f"  {name}: {value}")
        print()

        print("End it")
        await client.end_session(session)
        print(f"  does it still exist? {bool(await client.session_exists([session]))}\n")


if __name__ == "__main__":
    asyncio.run(main())
