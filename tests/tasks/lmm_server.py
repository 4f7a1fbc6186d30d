"""A real HTTP server on loopback that speaks the OpenAI-compatible API, and misbehaves on demand.

Chat completions, both shapes of decisions, files and batches. It honours idempotency keys (a key is paid once, repeats
are answered from its store) and counts everything. Run it in this process (``serving``) or as one of its own:
``python tests/tasks/lmm_server.py --port 0 --faults 0.1``, which prints its address; ``GET /stats`` tells the counts.
"""

import argparse
import hashlib
import json
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
FAULTS = ("rate_limited", "server_error", "hang", "truncated", "slow", "not_json", "drop")
"""What can go wrong with an answer on its way; ``faults`` names the next ones.

Two more are injected by name only: ``gateway`` (the answer is made and paid, and a 504 told) and ``error_body`` (an
error under status 200).
"""


def _share(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def text_of(body: Body) -> str:
    """The text of the last turn of a chat request."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def agreeable(_: Body) -> str:
    """A judge that agrees with everything."""
    return json.dumps({"verdict": "agree", "revision": None, "reason": "it is so"})


@dataclass
class Lmm:
    """State of the server.

    Attributes:
        brain: chat request -> content of the answer.
        faults: of the next answers, in order; an empty text is none.
        fault_share: share of further answers that go wrong, by a hash of key and attempt.
        refuse: chat request -> status and body of a refusal.
        tokens_in: counted for a chat request; ``tokens_out`` for its answer.
        redirect: where every request is sent on to; empty for nowhere.
        redirect_status: by which it is.
        batch_line: custom id -> what stands in the place of its line; None for the answer.
        logprobs: chat request that asks for them -> what is told of each token of the answer.
        busy: so many of the next requests about files and batches get a 503.
        honours_keys: answer a repeated idempotency key from the store.
        finish: finish_reason; ``refusal`` of the message.
        paid: idempotency key -> how often an answer was made for it.
        seen: idempotency key -> requests with it.
        delivered: keys whose whole answer has left the server at least once.
    """

    brain: Callable[[Body], str] = agreeable
    faults: list[str] = field(default_factory=list)
    fault_share: float = 0.0
    honours_keys: bool = True
    delay_s: float = 0.0
    hang_s: float = 30.0
    retry_after: str = "0.05"
    finish: str = "stop"
    refusal: str | None = None
    model_suffix: str = "-2026-11-01"
    prefer: str = ""
    reject: tuple[int, Body] | None = None
    refuse: Callable[[Body], tuple[int, Body] | None] = lambda _: None
    tokens_in: int = 900
    tokens_out: int = 40
    redirect: str = ""
    redirect_status: int = 307
    batch_polls: int = 1
    batch_line: Callable[[str], Body | None] = lambda _: None
    busy: int = 0
    logprobs: Callable[[Body], list[Body] | None] = lambda _: None
    address: str = ""
    paid: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    delivered: set[str] = field(default_factory=set)
    injected: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, Body] = field(default_factory=dict)
    _store: dict[str, bytes] = field(default_factory=dict)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _at_once: int = 0

    def stats(self) -> Body:
        """The counts."""
        with self._lock:
            return {
                "requests": sum(self.seen.values()),
                "keys": len(self.seen),
                "paid": sum(self.paid.values()),
                "paid_twice": sum(count > 1 for count in self.paid.values()),
                "repeated": sorted(key for key, count in self.seen.items() if count > 1),
                "seen": dict(self.seen),
                "injected": dict(self.injected),
                "most_at_once": self.most_at_once,
                "batches": len(self.batches),
            }

    def enter(self, key: str, body: Body, secret: str) -> str:
        """Count a request; returns the fault that befalls it."""
        with self._lock:
            self.seen[key] += 1
            self.keys.add(secret)
            self.bodies.append(body)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            if self.faults:
                fault = self.faults.pop(0)
            else:
                draw = _share(f"{key}/{self.seen[key]}")
                fault = FAULTS[int(draw / self.fault_share * len(FAULTS))] if draw < self.fault_share else ""
            self.injected[fault or "none"] += 1
            return fault

    def leave(self) -> None:
        """A request is over."""
        with self._lock:
            self._at_once -= 1

    def answer(self, path: str, body: Body, key: str) -> tuple[bytes, bool]:
        """Make an answer and pay for it, or take it from the store; whether it came from there."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if self.honours_keys and key in self._store:
                return self._store[key], True
            time.sleep(self.delay_s)
            made = json.dumps(self._made(path, body)).encode()
            with self._lock:
                self.paid[key] += 1
                self._store[key] = made
            return made, False

    def _made(self, path: str, body: Body) -> Body:
        model = f"{body['model']}{self.model_suffix}"
        if path.removesuffix("/moved").endswith("/chat/completions"):
            message = {"role": "assistant", "content": self.brain(body), "refusal": self.refusal}
            counts = {"prompt_tokens": self.tokens_in, "completion_tokens": self.tokens_out}
            usage = counts | {"total_tokens": sum(counts.values())}
            choice = {"index": 0, "message": message, "finish_reason": self.finish}
            if body.get("logprobs") and (told := self.logprobs(body)) is not None:
                choice["logprobs"] = {"content": told}
            return {"id": "c", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage}
        usage = {"input_tokens": 700, "output_tokens": 0}
        if path.endswith("/systemone"):
            question = body["questions"]["quality"]
            shares = self._probabilities(list(question["criteria"]))
            answer = {"type": "choice", "choice": max(shares, key=lambda n: shares[n]), "probabilities": shares}
            return {"model": model, "answers": {"quality": answer}, "usage": usage}
        shares = self._probabilities([choice["value"] for choice in body["questions"][0]["choices"]])
        listed = [{"value": name, "probability": share} for name, share in shares.items()]
        answer = {"type": "choice", "name": "quality", "choice": "x", "confidence": 0.9, "probabilities": listed}
        return {"model": model, "answers": [answer], "usage": usage}

    def _probabilities(self, options: list[str]) -> dict[str, float]:
        best = self.prefer if self.prefer in options else options[0]
        rest = 0.1 / (len(options) - 1)
        return {name: 0.9 if name == best else rest for name in options}

    def run_batch(self, batch: Body) -> None:
        """Do a batch whose time has come."""
        batch["polls"] += 1
        if batch["status"] != "in_progress" or batch["polls"] < self.batch_polls:
            return
        lines = []
        for line in self.files[batch["input_file_id"]].decode().splitlines():
            asked = json.loads(line)
            other = self.batch_line(asked["custom_id"])
            if other is not None:
                lines.append(json.dumps({"id": "x", "custom_id": asked["custom_id"], **other}))
                continue
            self.paid[asked["custom_id"]] += 1
            self.bodies.append(asked["body"])
            reply = {"status_code": 200, "request_id": "r", "body": self._made(asked["url"], asked["body"])}
            lines.append(json.dumps({"id": "x", "custom_id": asked["custom_id"], "response": reply, "error": None}))
        self.files[batch["output_file_id"]] = "\n".join(lines).encode()
        batch["status"] = "completed"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lmm: Lmm

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/stats":
            self._json(200, self.lmm.stats())
        elif self._busy():
            self._json(503, {"error": {"message": "busy"}})
        elif path == "/v1/batches":
            self._json(200, {"object": "list", "data": list(reversed(self.lmm.batches.values())), "has_more": False})
        elif path.startswith("/v1/batches/"):
            batch = self.lmm.batches[path.rpartition("/")[2]]
            self.lmm.run_batch(batch)
            self._json(200, batch)
        elif path.startswith("/v1/files/") and path.endswith("/content"):
            self._send(200, self.lmm.files[path.split("/")[3]])
        else:
            self._json(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.lmm.redirect and not self.path.endswith("/moved"):
            self._json(self.lmm.redirect_status, {}, {"Location": self.lmm.redirect})
        elif self.path in ("/v1/files", "/v1/batches") and self._busy():
            self._json(503, {"error": {"message": "busy"}})
        elif self.path == "/v1/files":
            name = f"file-{uuid.uuid4().hex[:8]}"
            self.lmm.files[name] = _uploaded(data)
            made = {"id": name, "object": "file", "bytes": len(data), "created_at": 1, "filename": "b.jsonl"}
            self._json(200, {**made, "purpose": "batch", "status": "processed"})
        elif self.path == "/v1/batches":
            self._json(200, self._batch(json.loads(data)))
        else:
            self._ask(json.loads(data))

    def _busy(self) -> bool:
        with self.lmm._lock:
            busy = self.lmm.busy > 0
            self.lmm.busy -= busy
            return busy

    def _batch(self, asked: Body) -> Body:
        name = f"batch-{len(self.lmm.batches)}"
        batch = {
            "id": name,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "input_file_id": asked["input_file_id"],
            "output_file_id": f"file-out-{name}",
            "completion_window": "24h",
            "created_at": int(time.time()),
            "status": "in_progress",
            "metadata": asked.get("metadata"),
            "polls": 0,
        }
        self.lmm.batches[name] = batch
        return batch

    def _ask(self, body: Body) -> None:
        key = self.headers.get("Idempotency-Key") or uuid.uuid4().hex
        secret = self.headers.get("Authorization", "").removeprefix("Bearer ")
        fault = self.lmm.enter(key, body, secret)
        self.lmm.headers.append(dict(self.headers))
        try:
            refused = self.lmm.refuse(body)
            if refused is not None:
                self._json(*refused)
            elif self.lmm.reject is not None:
                status, told = self.lmm.reject
                self._json(status, json.loads(json.dumps(told).replace("KEY", secret)))
            elif fault == "rate_limited":
                self._json(429, {"error": {"message": f"slow down, {secret}"}}, {"Retry-After": self.lmm.retry_after})
            elif fault == "server_error":
                self._json(500, {"error": {"message": f"oops {secret}"}})
            elif fault == "gateway":
                self.lmm.answer(self.path, body, key)
                self._json(504, {"error": {"message": "gateway"}})
            elif fault == "error_body":
                self._json(200, {"error": {"message": "overloaded", "code": 503}})
            elif fault == "drop":
                self.close_connection = True
            else:
                self._reply(body, key, fault, secret)
        finally:
            self.lmm.leave()

    def _reply(self, body: Body, key: str, fault: str, secret: str) -> None:
        answer, replayed = self.lmm.answer(self.path, body, key)
        answer = answer.replace(b"KEY", secret.encode())
        headers = {"Idempotent-Replayed": "true"} if replayed else {}
        if fault == "hang":
            time.sleep(self.lmm.hang_s)
        elif fault == "truncated":
            self._send(200, answer[: len(answer) // 2], headers)
            return
        elif fault == "not_json":
            self._send(200, b"<html>502 Bad Gateway</html>", headers)
            return
        elif fault == "slow":
            self._head(200, len(answer), headers)
            for start in range(0, len(answer), 40):
                self.wfile.write(answer[start : start + 40])
                self.wfile.flush()
                time.sleep(self.lmm.hang_s / 20)
            return
        self._send(200, answer, headers)
        self.lmm.delivered.add(key)

    def _json(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, len(data), headers)
        self.wfile.write(data)

    def _head(self, status: int, length: int, headers: dict[str, str] | None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(length),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Clients that are killed leave broken pipes: nothing to tell."""


def _uploaded(data: bytes) -> bytes:
    """The file in a multipart body: the part that starts like JSON."""
    parts = data.split(b"\r\n\r\n")
    return next(part.rpartition(b"\r\n--")[0] for part in parts if part.startswith(b"{"))


def make_server(lmm: Lmm, port: int = 0) -> ThreadingHTTPServer:
    """A server that is bound but does not serve yet."""
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"lmm": lmm}))
    lmm.address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return server


@contextmanager
def serving(lmm: Lmm | None = None) -> Iterator[Lmm]:
    """Serve from a thread of this process."""
    lmm = lmm or Lmm()
    server = make_server(lmm)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield lmm
    finally:
        server.shutdown()
        server.server_close()


def moody(body: Body) -> str:
    """A judge whose answers are settled by a hash of model and question: mostly agreeing, now and then anything."""
    text = text_of(body)
    draw = _share(f"{body['model']}{text}")
    if "yes, no or unsure" in text:
        answer = "no" if "Are they right?" in text else "yes"
        return json.dumps({"answer": answer if draw < 0.95 else "unsure", "reason": "looked again"})
    if draw < 0.985:
        return agreeable(body)
    if draw < 0.990:
        return json.dumps({"verdict": "revise", "revision": "Sharpness is slightly reduced", "reason": "a little"})
    if draw < 0.994:
        return json.dumps({"verdict": "severe", "revision": None, "reason": "not at all"})
    return "I would say that I agree." if draw < 0.998 else ""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--hang", type=float, default=3.0)
    named = parser.parse_args()
    lmm = Lmm(brain=moody, fault_share=named.faults, delay_s=named.delay, hang_s=named.hang)
    server = make_server(lmm, named.port)
    sys.stdout.write(f"{lmm.address}\n")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
