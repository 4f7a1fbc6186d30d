"""Judges of quality assertions: one protocol, measuring judges, parsing of untrusted answers, voting."""

from models.judges.answers import ANSWER_SCHEMA, parse_answer
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

__all__ = [
    "ANSWER_SCHEMA",
    "SELF_PROMPTS",
    "Assertion",
    "Bands",
    "Decision",
    "Judge",
    "MeasuringAnnotator",
    "MeasuringJudge",
    "Outcome",
    "SelfPrompt",
    "Verdict",
    "Vote",
    "chosen_revision",
    "decide",
    "decide_self_review",
    "embedded_annotator",
    "embedded_judges",
    "parse_answer",
]
