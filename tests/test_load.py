"""Many clients that find, edit, compare and send batches at once, while others cancel or vanish: every client gets the
answers of a serial run, memory stays flat, and no file of a session outlives it. Waiting clients learn their place."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import random
import time
import zipfile

import aiohttp
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.browser import served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

CLIENTS = int(os.environ.get("CLIENTS", 50))
ROUNDS = 2
"""How often each client sends each kind of request."""

TEXT = "replace the yellow circle with a green square"
GROWTH = 200 * 2**20
"""Bytes by which the server may grow between an eighth of the turns and the last one."""

QUICK = (0, 2, 3.0, "a green square on a white background", None, "auto", "", "", "")
"""Of an edit: seed, steps, guidance, target caption; no mask file, how one is read, and operations on the region."""

SYSTEMS = (["everything"], ["no region"])


def picture(seed: int) -> Image.Image:
    """An example with noise of its own, so that no two clients have the same picture."""
    example = np.asarray(Image.open("docs/examples/circle.png").convert("RGB").resize((64, 64)), int)
    noise = np.random.default_rng(seed).integers(-6, 7, example.shape)
    return Image.fromarray((example + noise).clip(0, 255).astype(np.uint8))


class Client:
    """One user of the page, with a picture of its own."""

    def __init__(self, session: aiohttp.ClientSession, address: str, number: int):
        self.session, self.address, self.number = session, f"{address}/gradio_api", number

    async def upload(self, number: int) -> dict:
        buffer = io.BytesIO()
        picture(number).save(buffer, "PNG")
        form = aiohttp.FormData()
        form.add_field("files", buffer.getvalue(), filename=f"client_{number}.png", content_type="image/png")
        async with self.session.post(f"{self.address}/upload", data=form) as uploaded:
            (path,) = await uploaded.json()
        return {"path": path, "orig_name": f"client_{number}.png", "meta": {"_type": "gradio.FileData"}}

    async def post(self, name: str, *data) -> str:
        async with self.session.post(f"{self.address}/call/{name}", json={"data": list(data)}) as posted:
            return f"{self.address}/call/{name}/{(await posted.json())['event_id']}"

    async def ask(self, name: str, *data) -> list:
        async with self.session.get(await self.post(name, *data)) as stream:
            last = (await stream.text()).strip().rsplit("event: ", 1)[1]
        assert last.startswith("complete"), last
        return json.loads(last.partition("data: ")[2])

    async def fetch(self, file: dict) -> bytes:
        async with self.session.get(file["url"]) as answered:
            return await answered.read()

    async def answer(self, kind: str) -> list[str]:
        """The hashes of the pictures that the page answers with; they hold no time."""
        file = await self.upload(self.number)
        if kind == "find":
            mask, heat_map, _ = await self.ask("find_region", file, TEXT)
            return [pixels(await self.fetch(mask)), pixels(await self.fetch(heat_map))]
        if kind == "edit":
            result, mask, record = await self.ask("edit", file, TEXT, *QUICK)
            assert json.loads(record)["id"] == f"client_{self.number}"
            return [pixels(await self.fetch(result)), pixels(await self.fetch(mask))]
        if kind == "compare":
            sheet, _ = await self.ask("compare", file, TEXT, *SYSTEMS)
            return [pixels(await self.fetch(sheet))]
        other = await self.upload(self.number + 10_000)
        archive, failures = await self.ask("batch", [file, other], TEXT, 0)
        assert not failures
        with zipfile.ZipFile(io.BytesIO(await self.fetch(archive))) as files:
            names = sorted(name for name in files.namelist() if name.endswith(("result.png", "mask.png")))
            assert len(names) == 4
            return [name + pixels(files.read(name)) for name in names]


class Tab(Client):
    """A browser's tab with a session, which presses *Edit all* on the tab Batch and may cancel or vanish."""

    async def press(self, page: dict, then: str, dice: random.Random) -> None:
        by_id = {component["id"]: component["props"] for component in page["components"]}
        (run,) = (found for found, props in by_id.items() if props.get("elem_id") == "batch-run")
        (event,) = (one for one in page["dependencies"] if [run, "click"] in [list(t) for t in one["targets"]])
        values = [by_id[found].get("value") for found in event["inputs"]]
        values[0] = [await self.upload(self.number), await self.upload(self.number + 10_000)]
        values[2] = TEXT
        name = f"tab{dice.getrandbits(64):x}"
        joined = {"data": values, "fn_index": event["id"], "session_hash": name}
        async with self.session.get(f"{self.address}/heartbeat/{name}"):
            async with self.session.post(f"{self.address}/queue/join", json=joined) as posted:
                number = (await posted.json())["event_id"]
            async with self.session.get(f"{self.address}/queue/data", params={"session_hash": name}) as stream:
                with contextlib.suppress(TimeoutError):
                    patience = None if then == "wait" else dice.uniform(0, 4)
                    async with asyncio.timeout(patience):
                        async for line in stream.content:
                            if b"process_completed" in line:
                                assert b'"success":true' in line, line
                                break
                if then == "cancel":
                    cancel = {"session_hash": name, "fn_index": event["id"], "event_id": number}
                    async with self.session.post(f"{self.address}/cancel", json=cancel) as cancelled:
                        assert cancelled.status == 200


KINDS = ("find", "edit", "compare", "batch")
TURNS = (*KINDS, "vanish", "wait", "cancel", "leave")
"""The four that are answered; a program that asks and listens to nothing; tabs that wait, cancel, or are closed."""


def pixels(data: bytes) -> str:
    return hashlib.sha256(np.asarray(Image.open(io.BytesIO(data))).tobytes()).hexdigest()


async def serial(address: str) -> dict[tuple[int, str], list[str]]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        clients = [Client(session, address, number) for number in range(CLIENTS)]
        return {(one.number, kind): await one.answer(kind) for one in clients for kind in KINDS}


async def rush(address: str, expected: dict, memory) -> list[int]:
    """Everybody at once, each in an order of its own; returns the server's memory after each turn."""
    sizes: list[int] = []

    async def turns(session, page, number: int) -> None:
        dice = random.Random(number)
        order = [*TURNS] * ROUNDS
        dice.shuffle(order)
        for turn in order:
            if turn in KINDS:
                assert await Client(session, address, number).answer(turn) == expected[number, turn]
            elif turn == "vanish":
                client = Client(session, address, number)
                await client.post("edit", await client.upload(number), TEXT, *QUICK)
            else:
                await Tab(session, address, number).press(page, turn, dice)
            sizes.append(memory())

    limits = {"timeout": aiohttp.ClientTimeout(total=None), "connector": aiohttp.TCPConnector(limit=0)}
    async with aiohttp.ClientSession(**limits) as session:
        async with session.get(f"{address}/config") as answered:
            page = await answered.json()
        await asyncio.gather(*(turns(session, page, number) for number in range(CLIENTS)))
    return sizes


def test_mixed_clients_get_the_answers_of_a_serial_run_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path.parent / "torch"))  # not a session's
    monkeypatch.setenv("GRADIO_IS_E2E_TEST", "1")  # a closed tab's session ends after a second, else after an hour
    with served("--queue", str(4 * CLIENTS)) as address:
        port = int(address.rsplit(":", 1)[1])
        (server,) = [
            process
            for process in psutil.Process().children(recursive=True)
            if any(c.laddr.port == port for c in process.net_connections("inet") if c.status == "LISTEN")
        ]
        expected = asyncio.run(serial(address))
        assert len({tuple(answer) for answer in expected.values()}) == len(expected)  # everybody's differ
        began = time.monotonic()
        sizes = asyncio.run(rush(address, expected, lambda: server.memory_info().rss))
        seconds = time.monotonic() - began
        early, late = sizes[len(sizes) // 8], server.memory_info().rss
        print(f"{len(sizes)} turns of {CLIENTS} clients in {seconds:.0f} s; ", end="")
        print(f"memory {early / 2**20:.0f} MiB after an eighth, {late / 2**20:.0f} MiB at the end")
        assert late - early < GROWTH
        (folder,) = tmp_path.glob("regionedit-*")
        until = time.monotonic() + 120
        while left := [*(folder / "jobs").glob("*"), *set(tmp_path.iterdir()) - {folder}]:
            assert time.monotonic() < until, left
            time.sleep(1)
    assert not list(tmp_path.iterdir())


def test_who_waits_is_told_the_place_and_a_full_queue_says_so():
    from gradio_client import Client, handle_file

    with served("--queue", "3") as address:
        waiting = Client(address, verbose=False)
        call = {
            "image": handle_file("docs/examples/square.png"),
            "instruction": "make the blue square red",
            "num_inference_steps": 20,
        }
        jobs = [waiting.submit(**call, seed=seed, api_name="/edit") for seed in range(8)]
        places = set()
        while not all(job.done() for job in jobs):
            places |= {job.status().rank for job in jobs} - {None}
            time.sleep(0.05)
        refused = [str(job.exception()) for job in jobs if job.exception() is not None]
        assert max(places) >= 1
        assert refused and all("queue is full" in reason.lower() for reason in refused)
        assert sum(job.exception() is None for job in jobs) >= 3
