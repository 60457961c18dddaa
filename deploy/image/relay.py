# ruff: noqa: INP001 - a script of the image, in no package
"""The way in to the coordinator's API from this host: bytes to one address and back, and nothing else.

The coordinator's own networks lead nowhere else, and this process has no secret and no other way.
"""

import asyncio
import sys

MOST_CONNECTIONS = 64
CHUNK = 64 * 1024


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Copy until the source ends, then say so to the target."""
    try:
        while chunk := await source.read(CHUNK):
            target.write(chunk)
            await target.drain()
        target.write_eof()
    except OSError:
        target.close()


async def main(listen: str, to: str) -> None:
    """Relay every connection at `listen` to `to`, both `host:port`."""
    room = asyncio.Semaphore(MOST_CONNECTIONS)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with room:
            try:
                host, _, port = to.rpartition(":")
                there_reader, there_writer = await asyncio.open_connection(host, int(port))
            except OSError:
                writer.close()
                return
            await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))
            writer.close()
            there_writer.close()

    host, _, port = listen.rpartition(":")
    server = await asyncio.start_server(relay, host, int(port))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
