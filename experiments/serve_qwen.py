"""Serves a local language model through an OpenAI-compatible endpoint, for demos and tests: one model, no API keys.

    python experiments/serve_qwen.py --port 8008     ->  http://127.0.0.1:8008/v1

It answers `POST /v1/chat/completions` and `GET /v1/models`, on 127.0.0.1 only. Requests that wait at the same time
share a batch. Text only; unknown fields of a request (top_p, stop ...) are ignored, streaming is refused. Port 0 takes
a free port; the address is printed when the server is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from aiohttp import web
from pydantic import BaseModel, Field, ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

HOST = "127.0.0.1"
LARGEST_REQUEST = 1_000_000  # bytes


class Message(BaseModel):
    role: str
    content: str


class Completion(BaseModel):
    """The fields of a request that the server reads."""

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int = Field(256, ge=1, le=4096)
    temperature: float = Field(1.0, ge=0, le=2)
    seed: int = 0
    stream: bool = False


class Server:
    """Answers chats with a model; those that wait at the same time share a batch.

    Args:
        folder: of an AutoModelForCausalLM with its tokenizer.
        batch: largest number of chats in a batch.
    """

    def __init__(self, folder: Path, batch: int):
        self.name = folder.name
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval()
        self.context = self.model.config.max_position_embeddings
        self.batch = batch
        self.thread = ThreadPoolExecutor(1)  # the model's own, so that requests are read while it computes
        self.waiting: asyncio.Queue[tuple[Completion, asyncio.Future]] = asyncio.Queue()

    async def work(self) -> None:
        """Answer waiting chats, forever."""
        while True:
            together = [await self.waiting.get()]
            while len(together) < self.batch and not self.waiting.empty():
                together.append(self.waiting.get_nowait())
            for group in self._batches(together):
                loop = asyncio.get_running_loop()
                try:
                    replies = await loop.run_in_executor(self.thread, self._generate, [chat for chat, _ in group])
                except Exception as error:  # one bad batch must not stop the server
                    replies = [error] * len(group)
                for (_, answer), text in zip(group, replies, strict=True):
                    if answer.cancelled():
                        continue
                    answer.set_exception(text) if isinstance(text, Exception) else answer.set_result(text)

    @staticmethod
    def _batches(together: list) -> list[list]:
        """Greedy chats in one batch; sampled chats one by one, because each has its own seed."""
        greedy = [item for item in together if item[0].temperature == 0]
        return [[item] for item in together if item[0].temperature > 0] + ([greedy] if greedy else [])

    @torch.inference_mode()
    def _generate(self, chats: list[Completion]) -> list[tuple[str, bool]]:
        """The generated text of each chat, and whether the model ended it itself."""
        texts = [
            self.tokenizer.apply_chat_template(
                [message.model_dump() for message in chat.messages], tokenize=False, add_generation_prompt=True
            )
            for chat in chats
        ]
        inputs = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        length = inputs.input_ids.shape[1]
        if length >= self.context:
            raise ValueError(f"messages: {length} tokens; the model reads at most {self.context}, so shorten them")
        limit = min(max(chat.max_tokens for chat in chats), self.context - length)
        torch.manual_seed(chats[0].seed)
        temperature = chats[0].temperature
        options = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        ids_BT = self.model.generate(**inputs, max_new_tokens=limit, **options)[:, length:]
        replies = []
        for ids, chat in zip(ids_BT.tolist(), chats, strict=True):
            reply = ids[: chat.max_tokens]
            ended = self.tokenizer.eos_token_id in reply
            replies.append((self.tokenizer.decode(reply, skip_special_tokens=True), ended))
        return replies

    async def complete(self, request: web.Request) -> web.Response:
        try:
            chat = Completion.model_validate_json(await request.read())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            return _refuse(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        if chat.model != self.name:
            return _refuse(404, f"model: {chat.model!r} is not served; use {self.name!r}")
        if chat.stream:
            return _refuse(400, "stream: not supported; set it to false")
        answer = asyncio.get_running_loop().create_future()
        await self.waiting.put((chat, answer))
        try:
            text, ended = await answer
        except ValueError as error:
            return _refuse(400, str(error))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop" if ended else "length",
        }
        head = {"id": "chat", "object": "chat.completion", "created": int(time.time()), "model": self.name}
        return web.json_response(head | {"choices": [choice]})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.name, "object": "model"}]})


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)


async def serve(server: Server, port: int) -> None:
    """Answer until the process is stopped."""
    app = web.Application(client_max_size=LARGEST_REQUEST)
    app.add_routes([web.post("/v1/chat/completions", server.complete), web.get("/v1/models", server.models)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        print(f"http://{HOST}:{runner.addresses[0][1]}/v1 serves {server.name}", flush=True)
        await server.work()
    finally:
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("checkpoints/microworld/qwen"), help="folder of the model")
    parser.add_argument("--port", type=int, default=8008, help="0 takes a free port")
    parser.add_argument("--batch", type=int, default=32, help="largest number of chats in a batch")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    args = parser.parse_args()
    if not (args.model / "config.json").is_file():
        parser.exit(2, f"serve_qwen.py: error: model: {args.model} holds no model; name a folder with its weights\n")
    torch.set_num_threads(args.threads)
    try:
        asyncio.run(serve(Server(args.model, args.batch), args.port))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        print(f"serve_qwen.py: error: port: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
