"""Many clients at once: nobody gets another's result, memory stays flat, waiting clients learn their place."""

import asyncio
import io
import json
import os
import time

import aiohttp
import numpy as np
import psutil
import pytest
from PIL import Image

from regionedit.images import digest
from tests.browser import served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

CLIENTS, REQUESTS = int(os.environ.get("CLIENTS", 50)), 20
TEXT = "replace the yellow circle with a green square"
NO_MASK = (None, "auto", "", "", "")
"""Of /edit: a mask file, how it is read, and operations on the region."""
GROWTH = 200 * 2**20
"""Bytes by which the server may grow between an eighth of the requests and the last one."""


def picture(seed: int) -> Image.Image:
    """An example with noise of its own, so that no two clients have the same picture."""
    example = np.asarray(Image.open("docs/examples/circle.png").convert("RGB").resize((64, 64)), int)
    noise = np.random.default_rng(seed).integers(-6, 7, example.shape)
    return Image.fromarray((example + noise).clip(0, 255).astype(np.uint8))


async def ask(session, address: str, name: str, *data) -> list:
    """Call an endpoint as curl would: post, then listen until it is complete."""
    async with session.post(f"{address}/gradio_api/call/{name}", json={"data": list(data)}) as posted:
        event = (await posted.json())["event_id"]
    async with session.get(f"{address}/gradio_api/call/{name}/{event}") as stream:
        text = await stream.text()
    last = text.strip().rsplit("event: ", 1)[1]
    assert last.startswith("complete"), last
    return json.loads(last.partition("data: ")[2])


async def client(session, address: str, number: int, done: list) -> None:
    source = picture(number)
    buffer = io.BytesIO()
    source.save(buffer, "PNG")
    for turn in range(REQUESTS):
        form = aiohttp.FormData()
        form.add_field("files", buffer.getvalue(), filename=f"client_{number}.png", content_type="image/png")
        async with session.post(f"{address}/gradio_api/upload", data=form) as uploaded:
            (path,) = await uploaded.json()
        file = {"path": path, "orig_name": f"client_{number}.png", "meta": {"_type": "gradio.FileData"}}
        seed = number * 1000 + turn
        caption = "a green square and a green triangle on a checkered white background"
        result, mask, record = await ask(session, address, "edit", file, TEXT, seed, 2, 3.0, caption, *NO_MASK)
        record = json.loads(record)
        assert (record["seed"], record["id"]) == (seed, f"client_{number}")
        assert record["picture"]["sha256"] == digest(source)
        async with session.get(result["url"]) as answered:
            edited = np.asarray(Image.open(io.BytesIO(await answered.read())))
        async with session.get(mask["url"]) as answered:
            region = np.asarray(Image.open(io.BytesIO(await answered.read())))
        assert np.array_equal(edited[region == 0], np.asarray(source)[region == 0])
        done.append(time.monotonic())


async def rush(address: str, memory) -> tuple[list[float], list[tuple[int, int]]]:
    done: list[float] = []
    sizes: list[tuple[int, int]] = []

    async def watch():
        while len(done) < CLIENTS * REQUESTS:
            sizes.append((len(done), memory()))
            await asyncio.sleep(1)

    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(client(session, address, number, done) for number in range(CLIENTS)))
        watching.cancel()
    return done, sizes


def test_fifty_clients_with_twenty_requests_each():
    with served() as address:
        port = int(address.rsplit(":", 1)[1])
        (server,) = [
            process
            for process in psutil.Process().children(recursive=True)
            if any(c.laddr.port == port for c in process.net_connections("inet") if c.status == "LISTEN")
        ]
        began = time.monotonic()
        done, sizes = asyncio.run(rush(address, lambda: server.memory_info().rss))
        seconds = time.monotonic() - began
        assert len(done) == CLIENTS * REQUESTS and server.is_running()
        early = next(size for count, size in sizes if count >= CLIENTS * REQUESTS // 8)
        late = server.memory_info().rss
        print(
            f"{len(done)} edits in {seconds:.0f} s; memory {early / 2**20:.0f} MiB, at the end {late / 2**20:.0f} MiB"
        )
        assert late - early < GROWTH


def test_who_waits_is_told_the_place_and_a_full_queue_says_so():
    from gradio_client import Client, handle_file

    buffer = "docs/examples/square.png"
    with served("--queue", "3") as address:
        waiting = Client(address, verbose=False)
        call = {"image": handle_file(buffer), "instruction": "make the blue square red", "num_inference_steps": 20}
        jobs = [waiting.submit(**call, seed=seed, api_name="/edit") for seed in range(8)]
        places = set()
        while not all(job.done() for job in jobs):
            places |= {job.status().rank for job in jobs} - {None}
            time.sleep(0.05)
        refused = [str(job.exception()) for job in jobs if job.exception() is not None]
        assert max(places) >= 1
        assert refused and all("queue is full" in reason.lower() for reason in refused)
        assert sum(job.exception() is None for job in jobs) >= 3
