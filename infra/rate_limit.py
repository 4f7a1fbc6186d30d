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
        self._free_at = clock()

    def reserve(self, tokens: int) -> float:
        """Take the next turn for a request of so many tokens.

        Returns:
            Seconds to wait before sending it.
        """
        with self._lock:
            now = self._clock()
            turn = max(self._free_at, now)
            self._free_at = turn + max(self._request_s, tokens * self._token_s)
            return turn - now

    def pause(self, seconds: float) -> None:
        """Give out no turn for so long: the server has asked for patience (429)."""
        with self._lock:
            self._free_at = max(self._free_at, self._clock() + seconds)
