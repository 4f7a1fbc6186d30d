"""Judges of quality assertions: one protocol, judges that measure or ask, parsing of untrusted answers, voting."""

from models.judges.answers import ANSWER_SCHEMA, parse_answer
from models.judges.asking import Asker, Asking, ChatQuestion, ChatReply, DecisionQuestion, DecisionReply, Shown
from models.judges.chat import ChatAnnotator, ChatJudge, chat_annotator
from models.judges.decisions import Certainty, DecisionJudge
from models.judges.measuring import (
    SELF_PROMPTS,
    Bands,
    MeasuringAnnotator,
    MeasuringJudge,
    SelfPrompt,
    embedded_annotator,
    embedded_judges,
)
from models.judges.protocol import Assertion, Judge, Verdict, Vote
from models.judges.voting import Decision, Outcome, chosen_revision, decide, decide_self_review
from models.judges.writing import REFUSAL, Describer, Polisher, Written

__all__ = [
    "ANSWER_SCHEMA",
    "REFUSAL",
    "SELF_PROMPTS",
    "Asker",
    "Asking",
    "Assertion",
    "Bands",
    "Certainty",
    "ChatAnnotator",
    "ChatJudge",
    "ChatQuestion",
    "ChatReply",
    "Decision",
    "DecisionJudge",
    "DecisionQuestion",
    "DecisionReply",
    "Describer",
    "Judge",
    "MeasuringAnnotator",
    "MeasuringJudge",
    "Outcome",
    "Polisher",
    "SelfPrompt",
    "Shown",
    "Verdict",
    "Vote",
    "Written",
    "chat_annotator",
    "chosen_revision",
    "decide",
    "decide_self_review",
    "embedded_annotator",
    "embedded_judges",
    "parse_answer",
]
