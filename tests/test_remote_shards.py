"""Shards behind a URL: the same samples in the same order as from a folder; broken connections; what cannot work."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from regionedit.data import remote
from regionedit.data.loader import TrainLoader
from regionedit.data.manifest import Manifest
from regionedit.data.marks import write_marks
from regionedit.data.shards import ShardReader
from tests.shards import write_shards
from tests.test_data import config, keys


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


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE", 0.01)


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "crawl", sizes=(5, 7, 6))


def test_samples_order_and_resume_are_those_of_the_folder(folder):
    """Also with loader processes, which need connections of their own."""
    local = TrainLoader(Manifest.open(folder), config(folder), seed=3)
    expected = [batch for batch in local]
    with file_server(folder) as server:
        manifest = Manifest.open(server.url)
        assert manifest.identity == Manifest.open(folder).identity
        for workers in (0, 2):
            loader = TrainLoader(manifest, config(server.url, workers=workers), seed=3)
            found = list(loader)
            assert keys(found) == keys(expected)
            assert all((a.images_BCHW == b.images_BCHW).all() for a, b in zip(found, expected, strict=True))
            assert [b.source_captions for b in found] == [b.source_captions for b in expected]
        resumed = TrainLoader(manifest, config(server.url), seed=3)
        resumed.load_state_dict(local.state_dict() | {"position": 2})
        assert keys(resumed) == keys(expected)[2:]


def test_a_picture_is_one_request_for_its_bytes_alone(folder):
    with file_server(folder) as server:
        reader = ShardReader(Manifest.open(server.url), 8)
        server.asked.clear()
        picture = reader.stored("picture", 6)
        assert picture == ShardReader(Manifest.open(folder), 8).stored("picture", 6)
        first, length = reader.manifest.columns["picture"][6]
        assert server.asked == [("GET", "00001.tar", f"bytes={first}-{first + length - 1}")]


def test_shards_are_indexed_once_and_again_when_they_or_a_sidecar_change(folder):
    with file_server(folder) as server:
        first = Manifest.open(server.url)
        server.asked.clear()
        assert Manifest.open(server.url).identity == first.identity
        assert all(method == "HEAD" or not name for method, name, _ in server.asked)
        write_marks(folder / "00001.marks.jsonl", {}, "h", {"k000006": ["a"]})
        assert len(Manifest.open(server.url)) == len(first) - 1
        (folder / "00001.marks.jsonl").unlink()
        assert Manifest.open(server.url).identity == first.identity
        write_shards(folder, sizes=(5, 7, 8))
        assert Manifest.open(server.url).identity == Manifest.open(folder).identity != first.identity


@pytest.mark.parametrize("entry", ["{}/{{00000..00002}}.tar", "{}"])
def test_a_server_that_lists_no_folders_needs_a_pattern(folder, entry):
    with file_server(folder, lists=False) as server:
        if "00000" in entry:
            assert Manifest.open(entry.format(server.url)).identity == Manifest.open(folder).identity
            return
        with pytest.raises(ValueError, match=r"it cannot be listed; name its shards, such as .*\{00000..00099\}.tar"):
            Manifest.open(server.url)


def test_a_lost_connection_is_tried_again_and_then_the_shard_is_named(folder):
    with file_server(folder, fails=lambda name, before: before % 3 != 2) as server:
        manifest = Manifest.open(server.url)  # every file needs three attempts
        assert manifest.identity == Manifest.open(folder).identity
        assert len(list(TrainLoader(manifest, config(server.url), 3))) == 4
        server.fails = lambda name, before: name == "00001.tar"
        loader = TrainLoader(manifest, config(server.url, workers=1), 3)
        with pytest.raises(ValueError, match=rf"^{server.url}/00001.tar: cannot be read after 6 attempts \(") as error:
            list(loader)
        assert "\n" not in str(error.value)


def test_what_cannot_work_is_one_line(folder, tmp_path):
    with file_server(folder) as server:
        manifest = Manifest.open(server.url)
        server.ranges = False
        with pytest.raises(ValueError, match="00000.tar: the server ignores ranges"):
            ShardReader(manifest, 8).read(0)
        server.ranges = True
        (folder / "00000.tar").write_bytes(b"")
        with pytest.raises(ValueError, match="00000.tar: cannot be read after"):
            ShardReader(manifest, 8).read(0)
        (folder / "00000.tar").unlink()
        with pytest.raises(ValueError, match="00000.tar: missing"):
            ShardReader(manifest, 8).read(0)
        with pytest.raises(ValueError, match="00000.tar: missing shard"):
            Manifest.open(server.url)
        (folder / "00001.instructions.jsonl").unlink()
        with pytest.raises(ValueError, match="00001.instructions.jsonl: missing"):
            Manifest.open(f"{server.url}/{{00001..00002}}.tar")
    with pytest.raises(ValueError, match="no-such-protocol://x: .*[Pp]rotocol"):
        Manifest.open("no-such-protocol://x")
