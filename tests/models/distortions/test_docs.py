from pathlib import Path

from models.distortions import IMAGE_TYPES, SEVERITY_WORDS, VIDEO_TYPES, ImageDistortion, VideoDistortion


def line(kind: ImageDistortion | VideoDistortion) -> str:
    number = kind.id if isinstance(kind, ImageDistortion) else "video"
    values = " | ".join(
        f"{value:g}" + (" (no change)" if strength == 0 else "")
        for value, strength in zip(kind.parameters, kind.strengths, strict=True)
    )
    return f"| {number} | `{kind.name}` | {kind.words} | {kind.parameter} | {values} | {kind.note} |"


def test_the_page_of_distortions_holds_the_table_that_the_code_runs_with(checkout: Path):
    page = (checkout / "docs" / "distortions.md").read_text().splitlines()
    told = [row for row in page if row.startswith(("| video |", *(f"| {number} |" for number in range(1, 26))))]
    assert told == [line(kind) for kind in (*IMAGE_TYPES.values(), *VIDEO_TYPES.values())]


def test_the_page_names_the_severity_words(checkout: Path):
    page = (checkout / "docs" / "distortions.md").read_text()
    for number, word in enumerate(SEVERITY_WORDS, start=1):
        assert f"{number} {word}" in page
