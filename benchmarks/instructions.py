"""Captions per second of everything but the language model, and the memory for a million captions.

    python -m benchmarks.instructions [--captions 200000] [--requests 20000] [--memory 1000000]

- `instructions_write`: reading, making prompts, checking answers and writing in two processes, with a stand-in for the
  model that answers at once. Baseline: a plain loop in two processes: tarfile, the same answers, json in and out; no
  schema, no resuming, no fsync.
- `instructions_http`: the endpoint writer over loopback HTTP with `data_prep/serve_writer.py` in a process of its own.
  Baseline: a plain aiohttp loop that posts the same bodies, as many at once, and checks and writes nothing.
- `instructions_memory`: peak memory over all captions. Baseline: over a tenth of them.

Shards hold a thousand captions each; they are links to one tar, because only their number matters here. The time to
start the processes is included.
"""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.harness import in_own_process, options, peak_mebibytes, record

PREPARATION = Path(__file__).parents[1] / "data_prep"
sys.path.insert(0, str(PREPARATION))  # its modules import each other by bare names

SHARD, PROCESSES, CONCURRENCY = 1000, 2, 64


def write_shards(folder: Path, captions: int) -> Path:
    """Shards as img2dataset writes them: jpg, json and txt of each key, fractions of seconds in the headers."""
    folder.mkdir()
    first = folder / "00000.tar"
    with tarfile.open(first, "w") as tar:
        for place in range(SHARD):
            caption = f"a photograph of a brown dog asleep on a grey sofa beside window number {place}"
            about = json.dumps({"caption": caption, "url": "https://example.org/picture.jpg", "status": "success"})
            for suffix, data in (("jpg", b"not read"), ("json", about.encode()), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{place:09d}.{suffix}")
                member.size, member.mtime = len(data), time.time()
                tar.addfile(member, io.BytesIO(data))
    for shard in range(1, captions // SHARD):
        os.link(first, folder / f"{shard:05d}.tar")
    return folder


def ours(folder: Path, **settings) -> float:
    """Captions per second of a run over a folder."""
    from write_config import EndpointConfig, WriteConfig
    from write_instructions import run

    if "url" in settings:
        settings["endpoint"] = EndpointConfig(url=settings.pop("url"), concurrency=CONCURRENCY)
    summary = run(WriteConfig(data=str(folder), **settings))
    assert summary.written == summary.new == summary.samples
    return summary.new / summary.seconds


def plain_shard(tar: Path) -> int:
    """One shard, processed as a short script would do it."""
    from writers import Ask, StandInWriter

    writer, count = StandInWriter(), 0
    with tarfile.open(tar) as file, tar.with_suffix(".jsonl").open("w") as out:
        for member in file:
            if member.name.endswith(".txt"):
                caption, key = file.extractfile(member).read().decode(), member.name[:-4]
                prompt = f"Write an edit of the picture with this caption as JSON: {caption}"
                ask = Ask(key, caption, "replace", None, [{"role": "user", "content": prompt}], 0, 0)
                edit = json.loads(writer.answer(ask))
                out.write(json.dumps({"key": key, **edit}) + "\n")
                count += 1
    return count


def plain_loop(folder: Path) -> float:
    started = time.perf_counter()
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        count = sum(pool.map(plain_shard, sorted(folder.glob("*.tar"))))
    return count / (time.perf_counter() - started)


async def plain_requests(url: str, bodies: list[dict]) -> float:
    import aiohttp

    started, todo = time.perf_counter(), iter(bodies)

    async def work(session: aiohttp.ClientSession) -> None:
        for body in todo:
            async with session.post(f"{url}/chat/completions", json=body) as response:
                json.loads((await response.json())["choices"][0]["message"]["content"])

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:
        await asyncio.gather(*(work(session) for _ in range(CONCURRENCY)))
    return len(bodies) / (time.perf_counter() - started)


def bodies(count: int) -> list[dict]:
    from endpoint_writer import EndpointWriter
    from prompt_file import load_prompt
    from write_config import WriteConfig
    from writers import Ask

    writer, prompt = EndpointWriter.load(WriteConfig(writer="openai")), load_prompt("instructions")
    made = []
    for number in range(count):
        caption = f"a photograph of a brown dog asleep on a grey sofa beside window number {number}"
        messages = prompt.messages(operation="replace", wording="plain", caption=caption)
        made.append(writer._body(Ask("", caption, "replace", None, messages, number, 0)))
    writer.close()
    return made


def served(writer: str) -> tuple[subprocess.Popen, str]:
    """The process of serve_writer.py and its address; returns once it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, str(PREPARATION / "serve_writer.py"), "--writer", writer, "--port", str(port)]
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"http://127.0.0.1:{port}/v1"
        time.sleep(0.05)
    raise RuntimeError("the stand-in endpoint did not start")


def peak_memory(folder: Path) -> float:
    """Peak memory of one worker in MiB."""
    ours(folder, writer="stand_in")
    return peak_mebibytes()


def main() -> None:
    counts = {"captions": 200_000, "requests": 20_000, "memory": 1_000_000}
    args = options(
        __doc__, **{name: (count, 10 * SHARD, "captions of this measurement") for name, count in counts.items()}
    ).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        many = write_shards(folder / "many", args.captions)
        baseline = plain_loop(many)
        record("instructions_write", ours(many, writer="stand_in", workers=PROCESSES), baseline, "captions/s")
        server, url = served("stand_in")
        try:
            posted = bodies(args.requests)
            baseline = asyncio.run(plain_requests(url, posted))
            requests = write_shards(folder / "requests", args.requests)
            record("instructions_http", ours(requests, writer="openai", url=url), baseline, "requests/s")
        finally:
            server.terminate()
            server.wait()
        few, all_of_them = (write_shards(folder / str(n), n) for n in (args.memory // 10, args.memory))
        baseline = in_own_process(peak_memory, few)
        record("instructions_memory", in_own_process(peak_memory, all_of_them), baseline, "MiB")


if __name__ == "__main__":
    main()
