"""Downloads that somebody asked for: one file over HTTP, resumed and checked, or a snapshot of the Hugging Face hub.

No stage, no scorer and no test imports this module to get its inputs: a run never downloads.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx

from infra.errors import InfraError
from infra.weight_files import HASH_DIGITS, Check, State, check_room, file_state, full_disk_told, locked

Progress = Callable[[int, int | None], None]
"""Told how many bytes are there, and how many there will be (None if the server does not say)."""

_HUB: Final = "https://huggingface.co"
_WAIT_S: Final = 1.0


class _BrokenError(Exception):
    """A transfer that may succeed if it is tried again."""


@dataclass(frozen=True)
class Download:
    """One file of the web and its place.

    Attributes:
        url: where it is; HF_ENDPOINT replaces the hub's address.
        target: where it belongs.
        sha256: published hash or its first digits; empty if there is none.
        tries: connections before it is given up; what has come is kept for the next command.
        silence_s: how long a server may say nothing.
    """

    url: str
    target: Path
    sha256: str = ""
    tries: int = 4
    silence_s: float = 60.0

    def run(self, check: Check, progress: Progress) -> None:
        """Download, check and put the file into its place; an unfinished one is continued.

        Raises:
            InfraError: the server cannot be reached or refuses, the disk is full, or the file is not what was
                published; the message says what to do.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_told(self.target, 0), locked(self._part) as file:
            self._receive_all(file, progress)
            finding = file_state(self._part, self.sha256)
            if finding.state is not State.PRESENT:
                self._remove()
                msg = f"{self.url} did not send {self.target.name} as published: {finding.detail}"
                raise InfraError(msg)
            try:
                check(self._part)
            except Exception:
                self._remove()
                raise
            self._part.replace(self.target)
            self._marks.unlink(missing_ok=True)

    def _remove(self) -> None:
        self._part.unlink()
        self._marks.unlink(missing_ok=True)

    @property
    def _part(self) -> Path:
        return self.target.with_name(f".{self.target.stem}.part{self.target.suffix}")

    @property
    def _marks(self) -> Path:
        """Which version of the file the part belongs to."""
        return self.target.with_name(f".{self.target.name}.part.json")

    def _receive_all(self, file: BinaryIO, progress: Progress) -> None:
        for attempt in range(1, self.tries + 1):
            try:
                self._receive(file, progress)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                msg = f"{self.url} cannot be reached ({_said(error)})"
                raise InfraError(msg) from error
            except (_BrokenError, httpx.HTTPError) as error:
                file.flush()
                if attempt == self.tries:
                    have = f"{self._part.stat().st_size / 1e6:.1f} MB are kept, and the same command goes on from there"
                    msg = f"{self.url} broke off {attempt} times ({_said(error)}): {have}"
                    raise InfraError(msg) from error
                time.sleep(_WAIT_S * attempt)
            else:
                return

    def _receive(self, file: BinaryIO, progress: Progress) -> None:
        have = self._part.stat().st_size
        timeout = httpx.Timeout(self.silence_s, connect=min(self.silence_s, 15.0))
        url = self.url.replace(_HUB, os.environ.get("HF_ENDPOINT", _HUB).rstrip("/"), 1)
        with (
            httpx.Client(timeout=timeout, follow_redirects=True) as client,
            client.stream("GET", url, headers=self._headers(have)) as response,
        ):
            start, total = self._begin(file, response, have)
            for piece in response.iter_raw():
                file.write(piece)
                start += len(piece)
                progress(start, total)
            file.flush()
        if total is not None and start != total:
            msg = f"{start} of {total} bytes came"
            raise _BrokenError(msg)

    def _headers(self, have: int) -> dict[str, str]:
        """Ask for the rest only where a change of the file in between would be noticed."""
        headers = {"Accept-Encoding": "identity"}
        version = self._read_marks().get("version", "")
        if have and (version or len(self.sha256) == HASH_DIGITS):
            headers["Range"] = f"bytes={have}-"
            headers |= {"If-Range": version} if version else {}
        return headers

    def _begin(self, file: BinaryIO, response: httpx.Response, have: int) -> tuple[int, int | None]:
        """Where the body starts and the file ends; what does not fit before it is cut off."""
        code = response.status_code
        stated = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and stated[2] == str(have):
            return have, None  # all of it is there
        if code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE or code >= httpx.codes.INTERNAL_SERVER_ERROR:
            if code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._forget(file)
            msg = f"the server answers {code} {response.reason_phrase}"
            raise _BrokenError(msg)
        if code not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
            msg = f"{self.url}: the server answers {code} {response.reason_phrase}"
            raise InfraError(msg)
        if code == httpx.codes.PARTIAL_CONTENT:
            if stated[0].partition("-")[0] != str(have):
                self._forget(file)
                raise _BrokenError("the server sent another part than the one asked for")
            total = int(stated[2]) if stated[2].isdigit() else None
        else:
            self._forget(file)
            have, length = 0, response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
        check_room(self.target, (total or have) - have)
        version = response.headers.get("ETag", "")
        strong = version if not version.startswith("W/") else response.headers.get("Last-Modified", "")
        self._marks.write_text(json.dumps({"url": self.url, "version": strong}))
        return have, total

    def _read_marks(self) -> dict[str, Any]:
        try:
            marks = json.loads(self._marks.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return marks if isinstance(marks, dict) and marks.get("url") == self.url else {}

    def _forget(self, file: BinaryIO) -> None:
        file.truncate(0)
        self._marks.unlink(missing_ok=True)


def download_snapshot(name: str, cache: Path, files: Sequence[str] = ()) -> None:
    """Download the main revision of a model of the hub into its cache; what is there already is kept.

    Args:
        files: that are wanted; all if none are named.

    Raises:
        InfraError: the hub cannot be reached or refuses, or HF_HUB_OFFLINE forbids it.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - half a second that only snapshots pay
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled  # noqa: PLC0415

    try:
        snapshot_download(name, cache_dir=cache, allow_patterns=list(files) or None)
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError) as error:
        msg = f"the snapshot {name} cannot be had ({_said(error)[:200]})"
        raise InfraError(msg) from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
