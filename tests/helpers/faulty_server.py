"""A server of chat completions on the loopback interface that fails by seeded chance, in every way that servers do.

What happens to a request depends on the server's seed, the body and how often that body came, so that the same
questions meet the same faults in any order. In its own process, for clients that are killed:

    python -m tests.helpers.faulty_server --seed 1 --chance 0.05 --hopeless 0.002
"""

import argparse
import hashlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np

from simulators.randomness import keyed_uniforms

_TRANSIENT, _HOPELESS = range(2)
Request = Mapping[str, Any]


class Fault(StrEnum):
    """What may happen instead of an answer."""

    STALL = "stall"
    DRIP = "drip"
    DROP = "drop"
    RATE_LIMIT = "rate_limit"
    ERROR = "error"
    BROKEN_JSON = "broken_json"
    TRUNCATED = "truncated"
    NO_CHOICES = "no_choices"


_SAID_INSTEAD = {
    Fault.RATE_LIMIT: (429, b'{"error": {"message": "slow down"}}'),
    Fault.ERROR: (500, b'{"error": {"message": "boom"}}'),
    Fault.NO_CHOICES: (200, b'{"object": "chat.completion", "choices": []}'),
}


def viewer_words(request: Request) -> str:
    """What a viewer of the film world might say, by the wish in the prompt and the seed."""
    wish = request["messages"][0]["content"].rpartition("You want: ")[2]
    phrases = (
        f"I want something {wish}.",
        f"Do you have a film that is {wish}?",
        f"Something {wish}, please.",
        f"Let me see one that is {wish}, if you can.",
    )
    return phrases[request["seed"] % len(phrases)]


class FaultyServer(ThreadingHTTPServer):
    """Serves while it is used as a context manager.

    Args:
        answer: The text for the body of a request.
        seed: Of the chances.
        chances: How likely each fault is when a body comes for the first, second, ... time.
        longest_run: How often a body may fail by these chances before it is answered.
        hopeless: Share of bodies that are never answered.
        script: What happens to the first requests, None for an answer; chances hold afterwards.
        retry_after: What a rate limit tells in its header.
        key: The only key that is let in, or None for any.
        model: The only model that is there, or None for any.
        refuses_schema: Whether a response format is refused: once at once, and later not until something was answered.
        usage: Whether tokens are counted.
    """

    daemon_threads = False
    request_queue_size = 256

    def __init__(
        self,
        answer: Callable[[Request], str] = viewer_words,
        *,
        seed: int = 0,
        chances: Mapping[Fault, float] | None = None,
        longest_run: int = 3,
        hopeless: float = 0.0,
        script: Sequence[Fault | tuple[int, str] | None] = (),
        retry_after: str = "0",
        key: str | None = None,
        model: str | None = None,
        refuses_schema: bool = False,
        usage: bool = True,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.seed = seed
        self.chances = dict(chances or {})
        self.longest_run = longest_run
        self.hopeless = hopeless
        self.script = list(script)
        self.retry_after = retry_after
        self.key = key
        self.model = model
        self.refuses_schema = refuses_schema
        self.usage = usage
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.came: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._some_answered = threading.Event()
        self._refused = False
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        """What a client takes as `base_url`."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are nothing to write home about."""

    def refuse(self, longest_s: float) -> None:
        """Wait for the moment to refuse a response format."""
        with self.lock:
            first, self._refused = not self._refused, True
        if not first:
            self._some_answered.wait(longest_s)
            self.closing.wait(0.1)

    def counts(self) -> dict[str, Any]:
        """What happened so far."""
        with self.lock:
            return {
                "requests": sum(self.came.values()),
                "questions": len(self.came),
                "answered": sum(self.answered.values()),
                "answered_again": sum(count - 1 for count in self.answered.values()),
                "faults": dict(self.faults),
            }

    def event(self, body: bytes) -> Fault | tuple[int, str] | None:
        """What happens to this request, and remember that it came."""
        name = int.from_bytes(hashlib.sha256(body).digest()[:7], "big")
        with self.lock:
            time = self.came[name]
            self.came[name] += 1
            self.bodies.append(json.loads(body))
            happens = self.script.pop(0) if self.script else self._by_chance(name, time)
            if happens is None:
                self.answered[name] += 1
                self._some_answered.set()
            else:
                self.faults[happens if isinstance(happens, str) else str(happens[0])] += 1
        return happens

    def _by_chance(self, name: int, time: int) -> Fault | tuple[int, str] | None:
        if self.hopeless and keyed_uniforms(self.seed, name, _HOPELESS) < self.hopeless:
            return 500, '{"error": {"message": "this one never works"}}'
        if not self.chances or time >= self.longest_run:
            return None
        place = np.searchsorted(
            np.cumsum(list(self.chances.values())), keyed_uniforms(self.seed, name, _TRANSIENT, time), "right"
        )
        return [*self.chances, None][int(place)]


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = 20
    server: FaultyServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._send(200, json.dumps(self.server.counts()).encode())

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with server.lock:
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            self._respond(body)
        finally:
            with server.lock:
                server.under_way -= 1

    def _respond(self, body: bytes) -> None:
        server, request = self.server, json.loads(body)
        if server.key is not None and self.headers.get("Authorization") != f"Bearer {server.key}":
            told = f"Incorrect API key provided: {self.headers.get('Authorization')}"
            self._send(401, json.dumps({"error": {"message": told}}).encode())
        elif server.model is not None and request["model"] != server.model:
            self._send(404, json.dumps({"error": {"message": f"no model {request['model']}"}}).encode())
        elif server.refuses_schema and "response_format" in request:
            server.refuse(self.timeout)
            self._send(400, b'{"error": {"message": "response_format is not supported"}}')
        else:
            self._happen(server.event(body), request)

    def _happen(self, happens: Fault | tuple[int, str] | None, request: Request) -> None:
        answer = self._answer(request)
        if isinstance(happens, tuple):
            self._send(happens[0], happens[1].encode())
        elif happens in _SAID_INSTEAD:
            status, said = _SAID_INSTEAD[happens]
            self._send(status, said, {"Retry-After": self.server.retry_after} if status == 429 else None)
        elif happens is Fault.BROKEN_JSON:
            self._send(200, answer[:-2] + b",}")
        elif happens is Fault.DRIP:
            self._drip(answer)
        elif happens is None:
            self._send(200, answer)
        else:
            self.close_connection = True
            if happens is Fault.STALL:
                self.server.closing.wait(self.timeout)
            if happens is Fault.TRUNCATED:
                self._send(200, answer[: len(answer) // 2], {"Content-Length": str(len(answer))})

    def _drip(self, answer: bytes) -> None:
        self.close_connection = True
        self._send(200, b"", {"Content-Length": str(len(answer))})
        for place in range(len(answer)):
            self.wfile.write(answer[place : place + 1])
            self.wfile.flush()
            if self.server.closing.wait(0.05):
                return

    def _answer(self, request: Request) -> bytes:
        text = self.server.answer(request)
        prompt = sum(len(message["content"].split()) for message in request["messages"])
        usage = {"prompt_tokens": prompt, "completion_tokens": len(text.split())}
        response: dict[str, Any] = {
            "id": "completion",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            ],
        }
        return json.dumps({**response, "usage": usage} if self.server.usage else response).encode()

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def main() -> None:
    """Serve until the standard input ends; the first line of output is the URL."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chance", type=float, default=0.05, help="of each transient fault")
    parser.add_argument(
        "--hopeless", type=float, default=0.0, help="share of questions that are never answered"
    )
    options = parser.parse_args()
    kinds = [fault for fault in Fault if fault is not Fault.DRIP]
    with FaultyServer(
        seed=options.seed,
        chances={fault: options.chance * (0.2 if fault is Fault.STALL else 1) for fault in kinds},
        hopeless=options.hopeless,
    ) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
