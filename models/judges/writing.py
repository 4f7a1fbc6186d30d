"""The annotator's two writers behind endpoints: a describer that tells what it sees, a polisher that edits it.

What they write is untrusted prose: whatever comes back goes through the same rules as measured descriptions
(``models.signals.assertions``), so only single assertions that make one measurable claim are left.
"""

from models.judges.answers import parse_object
from models.judges.asking import ChatQuestion, ChatReply, Shown
from models.judges.prompts import DESCRIBER, POLISH_SCHEMA, POLISHER

MAX_DESCRIPTION = 3000
"""Characters of a description that are read on."""


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

    def read(self, reply: ChatReply) -> str:
        """The description on printable lines; empty if the server refused."""
        if reply.problem == "refusal":
            return ""
        lines = (
            "".join(c for c in line if c.isprintable()).strip() for line in reply.text[:MAX_DESCRIPTION].splitlines()
        )
        return "\n".join(line for line in lines if line)


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

    def read(self, reply: ChatReply) -> str | None:
        """The assertions as sentences; None if the answer breaks the schema (the unpolished text is used then)."""
        problem, content = parse_object(reply.text, POLISH_SCHEMA["required"])
        if reply.problem or problem or not isinstance(content["assertions"], list):
            return None
        texts = [text.strip(" .!?;,\n") for text in content["assertions"] if isinstance(text, str)]
        return "".join(f"{text}.\n" for text in texts if text and text.isprintable())
