"""What review kept of each medium's description, in prose."""

from tasks.records import REVIEWED, Origin
from tasks.shards import read_table
from tasks.stage import Place


def reviewed_texts(place: Place) -> dict[str, str]:
    """The kept assertions of each medium in their order, as one text; planted ones never.

    Raises:
        StageError: ``review`` has not been published.
    """
    reviewed = read_table(place.artifacts("review") / "reviewed.parquet", REVIEWED)
    texts: dict[str, list[str]] = {}
    for row in reviewed.sort_values(["id", "position", "assertion_id"]).to_dict("records"):
        if row["kept"] and row["origin"] == Origin.DESCRIBER:
            texts.setdefault(row["id"], []).append(f"{row['text']}.")
    return {medium: " ".join(told) for medium, told in texts.items()}
