"""The network between gateways and a server: a proxy that cuts connections, tears answers, delays and holds bytes.

    gateway -- proxy.port --> Proxy -- target --> server

One thread with an event loop carries all connections. Bytes keep their order, and what is under way is bounded: a reader
that is not drained stops reading. A server that is down is refused as if nobody were in between.
"""

import asyncio
import contextlib
import socket
import threading

from server import Failure, free_port

PIECE_BYTES = 64 << 10
# Pieces of one direction that are under way: 2 MiB.
PIECES_MAX = 32


class Proxy:
    def __init__(self, target):
        self.port, self.target = free_port(), target
        self.delay, self.torn = 0.0, 0
        self.links, self.open = set(), None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.ready = threading.Event()
        self.failure = None
        self.thread.start()
        if not self.ready.wait(timeout=30) or self.failure:
            raise Failure(f"the proxy does not start: {self.failure}")

    # --- what a scenario does to it -------------------------------------------------------------------------------

    def cut(self):
        """Ends all connections at once, in the middle of whatever they carry. Says how many."""
        return self.on_loop(self._cut)

    def tear(self):
        """Of the next answer on each connection half gets through; then the connection ends."""
        return self.on_loop(self._tear)

    def set_delay(self, seconds):
        """Every piece from now on arrives so much later, in both directions."""
        self.delay = seconds

    def hold(self):
        """Nothing gets through any more; connections stay, and new ones are accepted."""
        self.on_loop(self.open.clear)

    def let_go(self):
        """What was held arrives, in order."""
        self.on_loop(self.open.set)

    def close(self):
        """Ends everything."""
        self.set_delay(0.0)
        self.on_loop(self._cut)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=30)

    def on_loop(self, work):
        done, result = threading.Event(), []

        def run():
            result.append(work())
            done.set()

        self.loop.call_soon_threadsafe(run)
        if not done.wait(timeout=30):
            raise Failure("the proxy does nothing any more")
        return result[0]

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(self):
        asyncio.set_event_loop(self.loop)
        try:
            self.open = asyncio.Event()
            self.open.set()
            server = self.loop.run_until_complete(asyncio.start_server(self.accept, "127.0.0.1", self.port, limit=PIECE_BYTES))
        except OSError as error:
            self.failure = error
            self.ready.set()
            return
        self.ready.set()
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))

    def _cut(self):
        links = list(self.links)
        for link in links:
            link.abort()
        return len(links)

    def _tear(self):
        self.torn += 1
        return len(self.links)

    async def accept(self, reader, writer):
        link = Link(writer, self.torn)
        self.links.add(link)
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=PIECE_BYTES)
            link.writers.append(onward_writer)
            for one in link.writers:
                one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.gather(
                self.carry(reader, onward_writer, link, is_answer=False), self.carry(onward_reader, writer, link, is_answer=True)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            link.abort()
            self.links.discard(link)

    async def carry(self, reader, writer, link, is_answer):
        """One direction: a task that reads, and one that writes when a piece is due."""
        queue = asyncio.Queue(PIECES_MAX)
        writing = asyncio.ensure_future(self.write(queue, writer, link, is_answer))
        try:
            piece = b"-"
            while piece and not writing.done():
                piece = await reader.read(PIECE_BYTES)
                await queue.put((self.loop.time() + self.delay, piece))
            await writing
        except OSError:
            link.abort()
        finally:
            writing.cancel()

    async def write(self, queue, writer, link, is_answer):
        with contextlib.suppress(OSError):
            while True:
                due, piece = await queue.get()
                early = due - self.loop.time()
                if early > 0:
                    await asyncio.sleep(early)
                await self.open.wait()
                if not piece:
                    # One side has ended: the other need not answer any more.
                    link.finish()
                    return
                if is_answer and link.torn != self.torn:
                    link.torn = self.torn
                    writer.write(piece[: len(piece) // 2])
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(writer.drain(), timeout=1)
                    link.finish()
                    return
                writer.write(piece)
                await writer.drain()


class Link:
    """The two sockets of one connection."""

    def __init__(self, writer, torn):
        self.writers, self.torn = [writer], torn

    def abort(self):
        """A reset: what was not sent is lost."""
        for writer in self.writers:
            writer.transport.abort()

    def finish(self):
        """Closes in order: what was written still arrives."""
        for writer in self.writers:
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()
