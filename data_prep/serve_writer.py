"""Serve a writer without a model as an OpenAI-compatible endpoint, to rehearse where no real endpoint is available.

    python data_prep/serve_writer.py --writer microworld --port 8123
    python data_prep/write_instructions.py --writer openai --endpoint.url http://127.0.0.1:8123/v1 --data ...

It answers `POST /v1/chat/completions` from the last message, which must be the JSON that the prompts of
data_prep/prompts produce: `operation` and `caption`, or `instruction` and `caption`. It listens on this machine only.
"""

from __future__ import annotations

import argparse
import json
import sys

from aiohttp import web
from write_config import WriteConfig
from writers import Ask, Writer, require_writer

SERVED = ("microworld", "stand_in")
_LARGEST = 2**20  # bytes of a request


def application(writer: Writer) -> web.Application:
    """The server around a writer."""

    async def complete(request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
            values = json.loads(body["messages"][-1]["content"])
            ask = Ask(
                key="",
                caption=values["caption"],
                operation=values.get("operation"),
                instruction=values.get("instruction"),
                messages=body["messages"],
                seed=int(body.get("seed") or 0),
                attempt=0,
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return web.json_response({"error": {"message": "the last message is not one of our prompts"}}, status=400)
        answer = writer.write([ask])[0]
        message = {"role": "assistant", "content": answer.text or f"I cannot: {answer.failure}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"object": "chat.completion", "model": body.get("model"), "choices": [choice]})

    made = web.Application(client_max_size=_LARGEST)
    made.router.add_post("/v1/chat/completions", complete)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writer", choices=SERVED, default="stand_in")
    parser.add_argument("--port", type=int, default=8123)
    args = parser.parse_args()
    writer = require_writer(args.writer).load(WriteConfig(writer=args.writer))
    try:
        web.run_app(application(writer), host="127.0.0.1", port=args.port, access_log=None, print=None)
    except OSError as error:
        print(f"serve_writer.py: --port: {args.port} cannot be used: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
