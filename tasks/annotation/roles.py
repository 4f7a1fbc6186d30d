"""Named roles behind endpoints: where a judge, the annotator, the describer or the polisher is, and what it costs.

Params say all of it except keys, of which they know the name of an environment variable.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from infra.lmm_endpoint import EndpointConfig
from infra.lmm_wire import ChatSettings
from models.judges import Asking, Certainty, ChatJudge, DecisionJudge, chat_annotator
from tasks.annotation.exhibits import Pictures
from tasks.annotation.spending import Budget
from tasks.shards import digest

_TOKENS_PER_CHARACTER: Final = 0.3
_MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Role:
    """One model behind an endpoint.

    Attributes:
        base_url: of the API, up to and with ``/v1``.
        model: name at the endpoint; part of every answer's key.
        key: NAME of the environment variable that holds the key; null for a server without keys.
        kind: ``chat`` answers in words by a schema; ``systemone`` and ``decisions`` give probabilities of options.
        price_in: of a million input tokens; prices are in one currency of your choice.
        price_out: of a million output tokens.
        requests_per_minute: rate limit in this process; null for none. ``tokens_per_minute`` likewise.
        concurrency: calls in flight at once; after a kill at most so many can be asked again.
        max_output_tokens: of one answer, reasoning included; what a call is admitted at, until the server bills more.
        limit_name: what the endpoint calls that limit.
        temperature: null leaves it to the server.
        structured: send the JSON schema of the answer.
        batched: the endpoint takes batch files; false: asked live in batch mode too, as decision judges are.
        picture_tokens: the most that one picture can take, for limits and budget; settled is what the server counts,
            and if that is more, later calls are admitted at it.
        output_tokens: estimate of an answer's tokens, for the dry run.
        severe_at: decision judges: probability from which a far claim is a severe deviation.
        margin: decision judges: by which the likeliest option must exceed chance and the next likeliest, else the judge
            abstains. Both are ours.
        timeout_s: for a whole answer. ``attempts``, ``first_wait_s``: see ``EndpointConfig``.
        longest_wait_s: before another attempt; a server's retry-after is honoured up to ten times this.
    """

    base_url: str
    model: str
    key: str | None = None
    kind: Literal["chat", "systemone", "decisions"] = "chat"
    price_in: float = 0.0
    price_out: float = 0.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int = 8
    max_output_tokens: int = 1000
    limit_name: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    temperature: float | None = None
    structured: bool = True
    batched: bool = True
    picture_tokens: int = 1600
    output_tokens: int = 120
    severe_at: float = Certainty.severe_at
    margin: float = Certainty.margin
    timeout_s: float = 120.0
    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.model or min(self.concurrency, self.max_output_tokens, self.picture_tokens) < 1:
            raise ValueError("a role needs a model, and concurrency, max_output_tokens, picture_tokens of at least 1")
        if min(self.price_in, self.price_out) < 0:
            raise ValueError("prices must not be negative")
        _ = self.endpoint, self.certainty  # say what is wrong with the address and the numbers

    @property
    def endpoint(self) -> EndpointConfig:
        """Where it is."""
        patience = (self.timeout_s, self.attempts, self.first_wait_s, self.longest_wait_s)
        return EndpointConfig(self.base_url, self.key, *patience)

    @property
    def chat(self) -> ChatSettings:
        """What goes into each of its chat requests."""
        limits = (self.max_output_tokens, self.limit_name, self.temperature, self.structured)
        return ChatSettings(self.model, *limits)

    @property
    def in_batches(self) -> bool:
        """Whether its questions go into batch files in batch mode."""
        return self.batched and self.kind == "chat"

    @property
    def certainty(self) -> Certainty:
        """When a decision judge's probabilities are a verdict."""
        return Certainty(self.severe_at, self.margin)

    def version(self, pictures: Pictures) -> str:
        """Part of prompt versions: everything here that an answer depends on."""
        limits = (self.kind, self.max_output_tokens, self.temperature, self.structured)
        return digest(*limits, pictures.version)[:8]

    def input_tokens(self, characters: int, pictures: int) -> int:
        """Estimate of a request's tokens."""
        return int(characters * _TOKENS_PER_CHARACTER) + 1 + pictures * self.picture_tokens

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Price of so many tokens."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / _MILLION


@dataclass(frozen=True)
class Batches:
    """How batches are made.

    Attributes:
        requests: of one batch file, at most (providers take 50,000).
        max_megabytes: of one batch file (OpenAI takes 200).
        poll_s: between looks at a batch.
        price_share: of the live price.
        attempts: batches for the same questions, if lines of the first come back with errors.
    """

    requests: int = 200
    max_megabytes: float = 150.0
    poll_s: float = 60.0
    price_share: float = 0.5
    attempts: int = 3

    def __post_init__(self) -> None:
        if min(self.requests, self.attempts) < 1 or min(self.poll_s, self.price_share, self.max_megabytes) < 0:
            raise ValueError("batches need requests and attempts of at least 1, and no other number below 0")


@dataclass(frozen=True)
class ReviewEndpoints:
    """Who reviews.

    Attributes:
        judges: name -> role, in the order in which their votes are counted.
        annotator: who described; asked again by the three reworded prompts.
        pictures: what all of them are shown.
        budget: hard limits of one review.
        mode: ``live``, or ``batch`` for batch files of the roles that are ``in_batches``.
        batches: of batch mode.
    """

    judges: dict[str, Role]
    annotator: Role
    pictures: Pictures = field(default_factory=Pictures)
    budget: Budget = field(default_factory=Budget)
    mode: Literal["live", "batch"] = "live"
    batches: Batches = field(default_factory=Batches)

    def __post_init__(self) -> None:
        if not self.judges or "annotator" in self.judges:
            raise ValueError("endpoints need at least one judge, and none of the name annotator")
        if self.annotator.kind != "chat":
            raise ValueError("the annotator must be of the kind chat")

    @property
    def roles(self) -> dict[str, Role]:
        """All roles by the name under which they vote."""
        return {**self.judges, "annotator": self.annotator}


@dataclass(frozen=True)
class DescribeEndpoints:
    """Who describes, and who edits the descriptions; see ``ReviewEndpoints``."""

    describer: Role
    polisher: Role
    pictures: Pictures = field(default_factory=Pictures)
    budget: Budget = field(default_factory=Budget)
    mode: Literal["live", "batch"] = "live"
    batches: Batches = field(default_factory=Batches)

    def __post_init__(self) -> None:
        if {self.describer.kind, self.polisher.kind} != {"chat"}:
            raise ValueError("describer and polisher must be of the kind chat")

    @property
    def roles(self) -> dict[str, Role]:
        """All roles by name."""
        return {"describer": self.describer, "polisher": self.polisher}


def price_share(endpoints: ReviewEndpoints | DescribeEndpoints, role: Role) -> float:
    """What a role's answers cost, as a share of the live price."""
    return endpoints.batches.price_share if endpoints.mode == "batch" and role.in_batches else 1.0


def bench_of(endpoints: ReviewEndpoints) -> tuple[tuple[Asking, ...], tuple[Asking, ...]]:
    """The judges, and the annotator under its reworded prompts."""
    judges: list[Asking] = []
    for name, role in endpoints.judges.items():
        version = role.version(endpoints.pictures)
        if role.kind == "chat":
            judges.append(ChatJudge(name, role.model, version))
        else:
            judges.append(DecisionJudge(name, role.model, version, role.certainty))
    annotator = endpoints.annotator
    return tuple(judges), chat_annotator(annotator.model, annotator.version(endpoints.pictures))
