"""A chat endpoint on this machine that answers as a test tells it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


class Server:
    """An endpoint in a thread; `respond(body, number of equal requests before)` returns the reply or a coroutine.

    A reply is a text, which becomes the content of a completion, a dictionary, which is sent as JSON, or a response.
    """

    def __init__(self, respond):
        self.respond, self.bodies, self.headers, self.url = respond, [], [], ""
        self.now = self.most = 0

    async def start(self) -> web.AppRunner:
        application = web.Application(client_max_size=10_000_000)
        application.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        before = sum(earlier["messages"] == body["messages"] for earlier in self.bodies)
        self.bodies.append(body)
        self.headers.append(request.headers)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            made = self.respond(body, before)
            made = await made if asyncio.iscoroutine(made) else made
        finally:
            self.now -= 1
        if isinstance(made, str):
            made = {"choices": [{"message": {"role": "assistant", "content": made}, "finish_reason": "stop"}]}
        return web.json_response(made) if isinstance(made, dict) else made


@contextmanager
def serving(respond) -> Iterator[Server]:
    """A server that runs until the block ends."""
    server, started, loop = Server(respond), threading.Event(), asyncio.new_event_loop()

    def run() -> None:
        runner = loop.run_until_complete(server.start())
        loop.call_soon(started.set)
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
