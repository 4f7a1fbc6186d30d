"""A real HTTP server on loopback that misbehaves on demand: what downloads meet on the way."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

REVISION = "a" * 40


@dataclass
class Served:
    """What a path gives, and how.

    Attributes:
        content: the whole file.
        cuts: after how many bytes each of the next answers breaks off.
        statuses: codes of the next answers instead of the file.
        etag: version of the file; empty for a server that states none.
        pause_s: wait before each of four pieces.
        ranges: whether a part can be asked for.
    """

    content: bytes
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    etag: str = '"1"'
    pause_s: float = 0.0
    ranges: bool = True


@dataclass
class Web:
    """Files by path, and what was asked: (method, path, Range header)."""

    address: str = ""
    files: dict[str, Served] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def serve(self, name: str, content: bytes, **how: object) -> str:
        """Put a file there and return its URL."""
        self.files[f"/{name}"] = Served(content, **how)  # type: ignore[arg-type]
        return f"{self.address}/{name}"

    def serve_snapshot(self, repository: str, files: dict[str, bytes]) -> None:
        """Answer for a repository as the hub does."""
        tree = [{"type": "file", "path": name, "oid": "0" * 40, "size": len(files[name])} for name in files]
        info = {"id": repository, "sha": REVISION, "siblings": [{"rfilename": name} for name in files]}
        self.files[f"/api/models/{repository}/revision/main"] = Served(json.dumps(info).encode())
        self.files[f"/api/models/{repository}/tree/{REVISION}"] = Served(json.dumps(tree).encode())
        for name, content in files.items():
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.files[f"/{repository}/resolve/{REVISION}/{name}"] = Served(content, etag=etag)


@contextmanager
def running_web() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(self, web)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    web.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, web: Web) -> None:
    path, wanted = handler.path.partition("?")[0], handler.headers.get("Range")
    web.asked.append((handler.command, path, wanted))
    served = web.files.get(path)
    code = 404 if served is None else served.statuses.pop(0) if served.statuses else 200
    if served is None or code != 200:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    fits = handler.headers.get("If-Range") in {None, served.etag}
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and fits and served.ranges else 0
    total = len(served.content)
    if start >= total and start:
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{total}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(total - start))
    handler.send_header("X-Repo-Commit", REVISION)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    if served.etag:
        handler.send_header("ETag", served.etag)
    handler.end_headers()
    if handler.command == "GET":
        _send(handler, served, start)


def _send(handler: BaseHTTPRequestHandler, served: Served, start: int) -> None:
    end = min(served.cuts.pop(0), len(served.content)) if served.cuts else len(served.content)
    body = served.content[start:end]
    quarter = max(1, len(body) // 4)
    for at in range(0, len(body), quarter):
        time.sleep(served.pause_s)
        with suppress(ConnectionError):  # whoever asked has left
            handler.wfile.write(body[at : at + quarter])
            handler.wfile.flush()
    handler.close_connection = True
