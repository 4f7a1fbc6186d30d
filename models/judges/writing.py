"""The annotator's two writers behind endpoints: a describer that tells what it sees, a polisher that edits it.

What they write is untrusted prose: whatever comes back goes through the same rules as measured descriptions
(``models.signals.assertions``), so only single assertions that make one measurable claim are left. An answer that is
none has a name, under which it is counted.
"""

import re
from dataclasses import dataclass
from typing import Final

from models.judges.answers import parse_object
from models.judges.asking import NO_ANSWER, PROBLEMS, ChatQuestion, ChatReply, Shown
from models.judges.prompts import DESCRIBER, POLISH_SCHEMA, POLISHER
from models.signals.assertions import assertions_of, without_last_sentence

MAX_DESCRIPTION: Final = 3000
"""Characters of a description that are read on."""
REFUSAL: Final = "refusal"

_REFUSES: Final = re.compile(
    r"\W*(?:(?:i'?m |i am )?(?:so |very )?sorry\b|unfortunately,? i\b|i (?:can'?t|cannot|can not|won'?t|will not)\b|"
    r"i(?:'?m| am) (?:unable|not able)\b|as an ai\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Written:
    """What a writer wrote.

    Attributes:
        text: what can be used of it, on printable lines.
        problem: name of the rule that the answer broke, or None; something may be usable all the same.
    """

    text: str
    problem: str | None = None


class Describer:
    """Tells what is seen of a medium's technical quality.

    Args:
        model: as it is asked for.
        version: of pictures and settings.
    """

    name = "describer"

    def __init__(self, model: str, version: str) -> None:
        self.model, self.prompt_version = model, f"{DESCRIBER.version}-{version}"

    def question(self, medium: Shown) -> ChatQuestion:
        """Show the medium."""
        video = ", camera stability and smoothness of motion" if medium.is_clip else ""
        system, text = DESCRIBER.fill("video" if medium.is_clip else "image", {}, video=video)
        return ChatQuestion(system, text, None, medium)

    def read(self, reply: ChatReply) -> Written:
        """The description; of one that was cut off, the sentences before the cut."""
        problem = None if reply.problem is None else PROBLEMS.get(reply.problem, NO_ANSWER)
        if problem in (REFUSAL, PROBLEMS["refused by the server"]):
            return Written("", problem)
        if problem is None and len(reply.text) > MAX_DESCRIPTION:
            problem = "answer too long"
        text = _printable(reply.text[:MAX_DESCRIPTION])
        if problem is not None:
            text = without_last_sentence(text)
        elif not text:
            problem = "empty answer"
        elif _REFUSES.match(text.replace("\u2019", "'")) and not assertions_of(text):
            return Written("", REFUSAL)
        return Written(text, problem)


class Polisher:
    """Edits a description into single assertions.

    Args:
        model: as it is asked for.
        version: of settings.
    """

    name = "polisher"

    def __init__(self, model: str, version: str) -> None:
        self.model, self.prompt_version = model, f"{POLISHER.version}-{version}"

    def question(self, description: str, medium: str) -> ChatQuestion:
        """Show the description as data."""
        system, text = POLISHER.fill(medium, {"description": description})
        return ChatQuestion(system, text, POLISH_SCHEMA, None)

    def read(self, reply: ChatReply) -> Written:
        """The assertions as sentences; none, and the broken rule, if the answer breaks the schema."""
        if reply.problem is not None:
            return Written("", PROBLEMS.get(reply.problem, NO_ANSWER))
        problem, content = parse_object(reply.text, POLISH_SCHEMA["required"])
        listed = content.get("assertions")
        if problem is None and not (isinstance(listed, list) and all(isinstance(text, str) for text in listed)):
            problem = "assertions are not a list of texts"
        if problem is not None:
            return Written("", problem)
        texts = [text.strip(" .!?;,\n") for text in content["assertions"]]
        return Written("".join(f"{text}.\n" for text in texts if text and text.isprintable()))


def _printable(text: str) -> str:
    lines = ("".join(c for c in line if c.isprintable()).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)
