"""A rate limit inside one process: requests and tokens per minute, spread evenly, for any number of threads."""

import threading
import time
from collections.abc import Callable


class RateLimit:
    """Turns are given out in the order in which they are asked for; whoever gets one waits for it by himself.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self._lock = clock, threading.Lock()
        self._free_at, self._pauses = clock(), 0

    def take(self, tokens: int, wait: Callable[[float], None]) -> None:
        """Wait for the turn of a request of so many tokens; who was waiting when a pause came takes a new turn.

        Args:
            tokens: of the request.
            wait: sleeps so many seconds; it may raise to give up.
        """
        while True:
            seconds, pauses = self._reserve(tokens)
            wait(seconds)
            with self._lock:
                if pauses == self._pauses:
                    return

    def pause(self, seconds: float) -> None:
        """Let nobody send for so long, those included who have a turn: the server has asked for patience (429)."""
        with self._lock:
            self._free_at = max(self._free_at, self._clock() + seconds)
            self._pauses += 1

    def _reserve(self, tokens: int) -> tuple[float, int]:
        with self._lock:
            now = self._clock()
            turn = max(self._free_at, now)
            self._free_at = turn + max(self._request_s, tokens * self._token_s)
            return turn - now, self._pauses
