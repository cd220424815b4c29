"""A web server on this machine for a folder of files, with ranges of bytes, that fails as a test tells it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web


class FileServer:
    """Serves a folder from a thread.

    Args:
        fails: is asked before each answer: does the connection break? Arguments: name, number of earlier requests.
        ranges: False: the server sends whole files whatever it is asked.
        lists: does it list the folder?
    """

    def __init__(self, folder: Path, fails: Callable[[str, int], bool], ranges: bool, lists: bool):
        self.folder, self.fails, self.ranges, self.lists = folder, fails, ranges, lists
        self.asked: list[tuple[str, str, str]] = []  # method, name, range
        self.url = ""

    async def start(self) -> web.AppRunner:
        application = web.Application()
        application.router.add_get("/crawl/{name:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/crawl"
        return runner

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        before = sum(earlier == name for _, earlier, _ in self.asked)
        self.asked.append((request.method, name, request.headers.get("Range", "")))
        if self.fails(name, before):
            request.transport.abort()
            return web.Response()
        if not name:
            links = "".join(f'<a href="{path.name}">x</a>' for path in self.folder.iterdir()) if self.lists else ""
            return web.Response(text=links, content_type="text/html", status=200 if self.lists else 403)
        if not (self.folder / name).is_file():
            return web.Response(status=404)
        if not self.ranges:
            return web.Response(body=(self.folder / name).read_bytes())
        return web.FileResponse(self.folder / name)


def never(name: str, before: int) -> bool:
    return False


@contextmanager
def file_server(
    folder: Path, fails: Callable[[str, int], bool] = never, ranges: bool = True, lists: bool = True
) -> Iterator[FileServer]:
    server, loop, ready = FileServer(folder, fails, ranges, lists), asyncio.new_event_loop(), threading.Event()
    runner: list[web.AppRunner] = []

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner.append(loop.run_until_complete(server.start()))
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner[0].cleanup())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
