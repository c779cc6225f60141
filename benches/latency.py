"""A line that is long: a proxy in front of a registry through which every byte takes half of the round trip's time.

    python3 benches/latency.py 127.0.0.1:5000 0.05

prints the address it listens on. A new connection costs a round trip before its first byte, as it does over a line.
"""

import asyncio
import sys

PIECE = 64 * 1024


async def carry(reader, writer, delay, first):
    """Hands over what comes `delay` seconds later, the first of it `first` seconds later still."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue(64)

    async def read():
        extra = first
        while piece := await reader.read(PIECE):
            await queue.put((loop.time() + delay + extra, piece))
            extra = 0
        await queue.put((loop.time() + delay, b""))

    reading = asyncio.create_task(read())
    try:
        while True:
            due, piece = await queue.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except (ConnectionError, OSError):
        pass
    finally:
        reading.cancel()


async def main(target, round_trip):
    host, port = target.rsplit(":", 1)
    # asyncio itself keeps no task that nobody waits for.
    tasks = set()

    async def connected(reader, writer):
        task = asyncio.current_task()
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(
                carry(reader, far_writer, round_trip / 2, round_trip), carry(far_reader, writer, round_trip / 2, 0)
            )
        except (ConnectionError, OSError):
            pass
        for end in [writer, far_writer]:
            end.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print("127.0.0.1:{}".format(server.sockets[0].getsockname()[1]), flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
