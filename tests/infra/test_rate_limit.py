"""Turns of a rate limit, with a clock that is set by hand."""

from infra.rate_limit import RateLimit


class Clock:
    """Time passes when somebody waits."""

    def __init__(self) -> None:
        self.now, self.waits = 100.0, []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)


def test_turns_are_spread_by_requests_and_by_tokens():
    clock = Clock()
    limit = RateLimit(60, 6000, clock=clock)
    for tokens in (10, 10, 500, 10):
        limit.take(tokens, clock.wait)
    assert clock.waits == [0, 1, 2, 7]
    clock.now = 200.0
    limit.take(10, clock.wait)
    assert clock.waits[-1] == 0


def test_without_limits_nobody_waits():
    clock = Clock()
    RateLimit(clock=clock).take(10**9, clock.wait)
    assert clock.waits == [0]


def test_a_pause_moves_who_comes_and_who_was_waiting():
    clock = Clock()
    limit = RateLimit(60, clock=clock)
    limit.take(1, clock.wait)
    waits: list[float] = []

    def interrupted(seconds: float) -> None:
        waits.append(seconds)
        clock.now += seconds
        if len(waits) == 1:
            limit.pause(30)  # the server asks for patience while this one waits

    limit.take(1, interrupted)
    assert waits == [1, 30]
    assert clock.now == 131.0
