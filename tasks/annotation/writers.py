"""Describer and polisher behind endpoints: descriptions of a part's samples, asked for and paid like votes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa

from infra.dvc_store import shared_store
from infra.object_store import ObjectStore
from models.judges import REFUSAL, ChatQuestion, ChatReply, Describer, Outcome, Polisher
from models.signals.assertions import sift
from models.signals.claims import Attribute, parse_claim
from models.signals.evidence import Medium
from models.signals.scale import attributes_of
from tasks.annotation.answers import AnswerBook, recover, spending_folder
from tasks.annotation.batches import BatchDesk, desk_in_mode
from tasks.annotation.calls import stored_calls
from tasks.annotation.desk import Desk, Inquiry
from tasks.annotation.exhibits import Exhibits, ShownMedia
from tasks.annotation.journal import read_lines
from tasks.annotation.leases import lease
from tasks.annotation.questions import TEXT_KIND, Question, Text, question_of
from tasks.annotation.roles import DescribeEndpoints, Role, price_share
from tasks.annotation.spending import Spending
from tasks.annotation.waves import Sample
from tasks.errors import MediaError
from tasks.records import RowSchema
from tasks.shards import digest
from tasks.stage import Place

FLAWS: Final = RowSchema(
    "flaws",
    pa.schema([("id", pa.string()), ("writer", pa.string()), ("flaw", pa.string()), ("count", pa.int64())]),
    ("id", "writer", "flaw"),
)
"""What of a sample's description broke a rule: answers of a writer, or ``sentences``; stays in the work folder."""

SENTENCES: Final = "sentences"
"""Under this name, in the place of a writer's, sentences are counted that became no assertion."""

_MEDIUM: Final = Medium(np.zeros((8, 8, 3), np.uint8))


@dataclass(frozen=True)
class Told:
    """What writers told of a sample.

    Attributes:
        text: sentences; empty if the describer gave none.
        broken: writer -> the rule that its answer broke.
    """

    text: str
    broken: Mapping[str, str]

    @property
    def reject(self) -> tuple[str, str]:
        """Reason and detail of a sample of which no assertion was left."""
        problem = self.broken.get(Describer.name)
        if self.text or problem is None:
            return "nothing_to_say", "no assertion was left after polishing"
        return "refused" if problem == REFUSAL else str(Outcome.MALFORMED), f"the describer's answer: {problem}"

    def assertions(self, modality: str, most: int) -> tuple[list[tuple[str, Attribute]], Counter[tuple[str, str]]]:
        """Single assertions with the attribute that each makes a claim about, and how often which rule was broken.

        Args:
            modality: of the sample.
            most: so many assertions, the first ones.
        """
        sifted, known = sift(self.text), attributes_of(modality)
        flaws = Counter([*self.broken.items(), *((SENTENCES, rule) for rule in sifted.dropped)])
        claimed = []
        for text in sifted.kept:
            claim = parse_claim(text)
            if claim is None or claim.attribute not in known:
                flaws[SENTENCES, "no single claim" if claim is None else "no attribute of this kind of medium"] += 1
            else:
                claimed.append((text, claim.attribute))
        if len(claimed) > most:
            flaws[SENTENCES, "more than describe.assertions"] = len(claimed) - most
        return claimed[:most], flaws


def flaw_counts(flaws: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Writer -> broken rule -> how many of its answers broke it; ``sentences`` likewise."""
    counts: dict[str, Counter[str]] = {}
    for row in flaws:
        counts.setdefault(row["writer"], Counter())[row["flaw"]] += row["count"]
    return {writer: dict(sorted(rules.items())) for writer, rules in sorted(counts.items())}


@dataclass(frozen=True)
class Writers:
    """The two writers at their desk.

    Attributes:
        desk: asks, live or by batch files.
        account: that is charged.
        media: what the describer is shown.
        store: the answer store.
        journals: folder of the workspace's journals.
        describer: words and reads descriptions.
        polisher: words and reads edited ones.
    """

    desk: Desk | BatchDesk
    account: str
    media: ShownMedia
    store: ObjectStore
    journals: Path
    describer: Describer
    polisher: Polisher

    @classmethod
    def at(cls, place: Place, endpoints: DescribeEndpoints, account: str) -> "Writers":
        """Open the desk of a workspace, after answers that killed runs have left are in the store."""
        store, journals = shared_store(place.root), place.root / ".vital" / "journal"
        store.check()
        recover(store, journals)
        spending = Spending(spending_folder(journals), account, endpoints.budget)
        desk = Desk(endpoints.roles, Exhibits(endpoints.pictures), spending, account)
        asking = desk_in_mode(desk, endpoints, place.root)
        return cls(asking, account, ShownMedia(place, endpoints.pictures), store, journals, *writers_of(endpoints))

    def describe(self, part: str, samples: Sequence[Sample]) -> dict[str, Told]:
        """What was told by sample id; of a sample that cannot be decoded, nothing.

        Raises:
            BudgetReachedError: the budget is reached; what was answered is kept.
            EndpointError: an endpoint refuses, or failed at every attempt.
        """
        contents = {sample["bytes_sha256"] for sample in samples}
        journal = self.journals / f"describe-{part}.jsonl"
        with (
            lease(self.store, f"describe-{part}", self.journals),
            AnswerBook(self.store, journal, contents, TEXT_KIND, self.account) as book,
        ):
            every = {sample["id"]: self._first(sample) for sample in samples}
            known = {name for name, inquiry in every.items() if book.known(inquiry.question) is not None}
            with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
                sound = pool.map(lambda sample: sample["id"] in known or self._decodes(sample), samples)
            shown = [sample for sample, decodes in zip(samples, sound, strict=True) if decodes]
            first = {sample["id"]: every[sample["id"]] for sample in shown}
            self.desk.answer(book, list(first.values()))
            raw = {name: cast("Text", book.known(inquiry.question)) for name, inquiry in first.items()}
            second = {row["id"]: self._second(row, raw[row["id"]].text) for row in shown if raw[row["id"]].text}
            self.desk.answer(book, list(second.values()))
            edited = {name: cast("Text", book.known(inquiry.question)) for name, inquiry in second.items()}
            book.commit()
        self.media.forget()
        return {name: _told(text, edited.get(name)) for name, text in raw.items()}

    def _decodes(self, sample: Sample) -> bool:
        try:
            self.media.of(sample)
        except MediaError:
            return False  # the caller meets the same error and rejects the sample with its reason
        return True

    def _first(self, sample: Sample) -> Inquiry[Text]:
        writer = self.describer
        question = _question(writer, sample, "")

        def read(reply: ChatReply) -> Text:
            written = writer.read(reply)
            return Text(written.text, reply.model, written.problem)

        return Inquiry(question, lambda: writer.question(self.media.of(sample)), read)

    def _second(self, sample: Sample, raw: str) -> Inquiry[Text]:
        writer = self.polisher
        question = _question(writer, sample, raw)

        def read(reply: ChatReply) -> Text:
            written = writer.read(reply)
            return Text(raw if written.problem else written.text, reply.model, written.problem)

        return Inquiry(question, lambda: writer.question(raw, str(sample["modality"])), read)


def _told(description: Text, edited: Text | None) -> Told:
    answers = {Describer.name: description, Polisher.name: edited}
    broken = {name: told.problem for name, told in answers.items() if told is not None and told.problem is not None}
    return Told("" if edited is None else edited.text, broken)


def _question(writer: Describer | Polisher, sample: Sample, edited: str) -> Question:
    return Question(sample["bytes_sha256"], edited, writer.name, writer.model, writer.prompt_version, 1)


def writers_of(endpoints: DescribeEndpoints) -> tuple[Describer, Polisher]:
    """Who words and reads."""
    roles = endpoints.roles.values()
    versions = [role.version(endpoints.pictures) for role in roles]
    return Describer(endpoints.describer.model, versions[0]), Polisher(endpoints.polisher.model, versions[1])


def calls_about(place: Place, endpoints: DescribeEndpoints, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Calls, of any run, to these writers about these samples."""
    contents = {sample["bytes_sha256"] for sample in samples}
    asked = {(writer.name, writer.model, writer.prompt_version) for writer in writers_of(endpoints)}
    rows = stored_calls(shared_store(place.root), contents)
    named = ("judge", "model", "prompt_version")
    return [row for row in rows if tuple(row[name] for name in named) in asked]


def describing_account(endpoints: DescribeEndpoints, ids: Iterable[str]) -> str:
    """Name of the account of descriptions of these samples by these models, killed or not."""
    models = [(name, role.model) for name, role in endpoints.roles.items()]
    return f"describe-{digest(models, sorted(ids))[:16]}"


def foresee_descriptions(endpoints: DescribeEndpoints, place: Place, samples: Sequence[Sample]) -> str:
    """Calls, tokens and cost of the descriptions that nobody has made yet, in one line; asks nobody, writes nothing."""
    calls: list[tuple[Role, int, int]] = []  # role, tokens in as expected, and at most
    asked: set[Question] = set()
    known = _known_texts(place, {sample["bytes_sha256"] for sample in samples})
    describer, polisher = writers_of(endpoints)
    for sample in samples:
        first = _question(describer, sample, "")
        told = known(first)
        if first in asked or (told is not None and not told.text):
            continue
        asked.add(first)
        if told is None:
            seen = _tokens(endpoints.describer, describer.question(_MEDIUM), endpoints.pictures.count(sample["frames"]))
            calls.append((endpoints.describer, seen, seen))
            edit = _tokens(endpoints.polisher, polisher.question("", "image"), 0)
            more = (endpoints.describer.output_tokens, endpoints.describer.max_output_tokens)
            calls.append((endpoints.polisher, edit + min(more), edit + max(more)))
        elif known(_question(polisher, sample, told.text)) is None:
            edit = _tokens(endpoints.polisher, polisher.question(told.text, "image"), 0)
            calls.append((endpoints.polisher, edit, edit))
    tokens = sum(expected for _, expected, _ in calls)
    shares = [price_share(endpoints, role) for role, _, _ in calls]
    likely = (role.cost(expected, min(role.output_tokens, role.max_output_tokens)) for role, expected, _ in calls)
    cost = sum(map(mul, shares, likely))
    most = sum(map(mul, shares, (role.cost(bound, role.max_output_tokens) for role, _, bound in calls)))
    told = f"at most {len(calls):,} calls, about {tokens:,} tokens in, cost {cost:.2f} (at most {most:.2f})"
    return f"{told}, by batch files" if endpoints.mode == "batch" else told


def _tokens(role: Role, asked: ChatQuestion, pictures: int) -> int:
    return role.input_tokens(len(asked.system) + len(asked.text), pictures)


def _known_texts(place: Place, contents: set[str]) -> Callable[[Question], Text | None]:
    """What is told of some contents: in the store, and in journals that killed runs have left, which stay as they are.

    A book in a folder of its own reads the store; it is asked nothing and commits nothing.
    """
    left: dict[Question, Text] = {}
    for path in sorted((place.root / ".vital" / "journal").glob("*.jsonl")):
        rows = [entry[TEXT_KIND.name] for entry in read_lines(path) if TEXT_KIND.name in entry]
        left |= {question_of(row): TEXT_KIND.of_row(row) for row in rows}
    store = shared_store(place.root)
    with TemporaryDirectory() as aside, AnswerBook(store, Path(aside) / "aside.jsonl", contents, TEXT_KIND) as book:
        return lambda question: book.known(question) or left.get(question)
