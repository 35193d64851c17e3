"""An OpenAI-compatible server that says what a test tells it to, one reply a request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def words(text: str) -> dict[str, Any]:
    """A reply in words."""
    return {"role": "assistant", "content": text}


def calls(*wanted: tuple[str, Any], text: str | None = None) -> dict[str, Any]:
    """A reply that calls tools: (name, arguments as a dict, or as raw text)."""
    return {
        "role": "assistant",
        "content": text,
        "tool_calls": [
            {
                "id": f"call-{place}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": given if isinstance(given, str) else json.dumps(given),
                },
            }
            for place, (name, given) in enumerate(wanted)
        ],
    }


class Script:
    """Replies in order, the last one for ever; and the requests that came."""

    def __init__(self, replies: Sequence[Any], delay: float = 0.0) -> None:
        self.replies, self.delay = list(replies), delay
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.closing = threading.Event()

    def told(self, request: int) -> list[str]:
        """The answers to calls that a request hands the model."""
        return [
            message["content"]
            for message in self.requests[request]["messages"]
            if message["role"] == "tool"
        ]


@contextmanager
def scripted(*replies: Any, delay: float = 0.0) -> Iterator[Script]:
    """Serves replies: messages, or HTTP status codes."""
    script = Script(replies, delay)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            script.requests.append(json.loads(self.rfile.read(length)))
            script.headers.append(dict(self.headers))
            script.closing.wait(script.delay)
            place = min(len(script.requests), len(script.replies)) - 1
            reply = script.replies[place]
            code, body = 200, {}
            if isinstance(reply, int):
                code, body = reply, {"error": {"message": "no such model: parrot"}}
            else:
                reason = "tool_calls" if "tool_calls" in reply else "stop"
                choice = {"index": 0, "message": reply, "finish_reason": reason}
                body = {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "scripted",
                    "choices": [choice],
                }
            data = json.dumps(body).encode()
            try:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                assert script.delay  # the client gave up, as a test of the time limit wants

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield script
    finally:
        script.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
