"""Judges and annotators that ask an LMM in words and believe nothing but the schema."""

from dataclasses import replace
from typing import Any

from models.judges.answers import ANSWER_SCHEMA, parse_answer, parse_object
from models.judges.asking import NO_ANSWER, PROBLEMS, Asker, Asking, ChatQuestion, Reply, Shown, not_asked
from models.judges.measuring import SelfPrompt
from models.judges.prompts import JUDGE, SELF_QUESTIONS, SELF_REVIEW, SELF_SCHEMA, Prompt, told_attribute
from models.judges.protocol import Assertion, Verdict, Vote
from models.signals.claims import parse_claim
from models.signals.vocabulary import vocabulary_version


class ChatJudge(Asking):
    """The paper's kind of judge: sees the medium and the statement, answers by the schema.

    The vocabulary is part of its version, because it decides which revisions are read.
    """

    def __init__(self, name: str, model: str, version: str, ask: Asker = not_asked) -> None:
        super().__init__(name, model, f"{JUDGE.version}-{vocabulary_version()}-{version}", ask)

    def question(self, assertion: Assertion, medium: Shown, round_number: int) -> ChatQuestion:  # noqa: ARG002 - rounds ask alike
        """Show the medium and the statement."""
        system, text = JUDGE.fill(assertion.medium, {"statement": assertion.text})
        return ChatQuestion(system, text, ANSWER_SCHEMA, medium)

    def read(self, assertion: Assertion, reply: Reply) -> Vote:
        """Read by the schema; a revision must be a statement about the quality that was asked about."""
        text = _text_of(reply)
        if isinstance(text, Vote):
            return text
        vote = parse_answer(text)
        if vote.revision is not None and _attribute(vote.revision) != _attribute(assertion.text):
            vote = Vote(Verdict.MALFORMED, None, "revision is about something else")
        return _signed(vote, reply)


class ChatAnnotator(Asking):
    """The describer's model, asked again about its own statement in one of three wordings."""

    def __init__(self, prompt: SelfPrompt, model: str, version: str, ask: Asker = not_asked) -> None:
        super().__init__("annotator", model, f"{prompt}-{_wording(prompt).version}-{version}", ask)
        self._prompt = prompt

    def question(self, assertion: Assertion, medium: Shown, round_number: int) -> ChatQuestion:  # noqa: ARG002 - the prompt is the round
        """Show the medium and the statement, and ask in this wording."""
        claim = parse_claim(assertion.text)
        attribute = told_attribute(claim.attribute) if claim else "quality"
        system, text = _wording(self._prompt).fill(assertion.medium, {"statement": assertion.text}, attribute=attribute)
        return ChatQuestion(system, text, SELF_SCHEMA, medium)

    def read(self, assertion: Assertion, reply: Reply) -> Vote:  # noqa: ARG002 - the answer says all
        """Confirmed by yes, by no where the question was whether it is wrong; unsure abstains."""
        text = _text_of(reply)
        if isinstance(text, Vote):
            return text
        problem, content = parse_object(text, SELF_SCHEMA["required"])
        problem = problem or _problem_with(content)
        if problem:
            return _signed(Vote(Verdict.MALFORMED, None, problem), reply)
        confirming = "no" if self._prompt is SelfPrompt.DENY else "yes"
        verdicts = {"unsure": Verdict.ABSTAIN, confirming: Verdict.AGREE}
        return _signed(Vote(verdicts.get(content["answer"], Verdict.SEVERE), None, content["reason"].strip()), reply)


def chat_annotator(model: str, version: str, ask: Asker = not_asked) -> tuple[ChatAnnotator, ...]:
    """The annotator under its three reworded prompts."""
    return tuple(ChatAnnotator(prompt, model, version, ask) for prompt in SelfPrompt)


def _wording(prompt: SelfPrompt) -> Prompt:
    return replace(SELF_REVIEW, text=SELF_REVIEW.text.replace("{question}", SELF_QUESTIONS[prompt]))


def _text_of(reply: Reply) -> str | Vote:
    """The answer's words, or the malformed vote that a reply without usable words is."""
    if reply.problem is not None:
        return _signed(Vote(Verdict.MALFORMED, None, PROBLEMS.get(reply.problem, NO_ANSWER)), reply)
    return getattr(reply, "text", "")


def _signed(vote: Vote, reply: Reply) -> Vote:
    return Vote(vote.verdict, vote.revision, vote.reason, reply.model)


def _attribute(text: str) -> object:
    claim = parse_claim(text)
    return claim.attribute if claim else None


def _problem_with(content: dict[str, Any]) -> str | None:
    answer, reason = content["answer"], content["reason"]
    if not isinstance(answer, str) or answer not in SELF_SCHEMA["properties"]["answer"]["enum"]:
        return "unknown answer"
    short = isinstance(reason, str) and len(reason) <= SELF_SCHEMA["properties"]["reason"]["maxLength"]
    return None if short and reason.isprintable() else "reason is not a short line"
