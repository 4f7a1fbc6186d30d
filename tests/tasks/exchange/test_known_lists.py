"""The authors' 22 lists: what the importer reads equals what was counted by others and by other means."""

import json
import math
import re
from pathlib import Path

import pytest

from tasks.errors import StageError
from tasks.exchange.export import export_text
from tasks.exchange.formats import Options, import_file, import_records
from tasks.exchange.json_text import cut
from tasks.exchange.known_lists import KNOWN, LISTS, KnownList, fingerprint
from tasks.human_scale import Meaning, Polarity
from tasks.shards import read_table, write_table

# Rows and range of papers/vital.md section 4, as written there (means are not told there).
COUNTED = {
    "test_koniq.json": (2010, 7.05, 83.5), "test_spaq.json": (2224, 4, 93.67), "test_kadid.json": (2000, 1.03, 4.83),
    "agi.json": (2982, 0, 4.489), "livec.json": (1169, 3.42, 92.43), "test_BID.json": (586, 0.164, 4.92),
    "test_csiq_866.json": (866, -1, 0), "test_tid2013_3k.json": (3000, 0.242, 7.214), "4K_test.json": (1191, 1.5, 5),
    "LSVQ_test_.json": (7182, 8.47, 91.03), "lsvq1080p.json": (3573, 0, 1), "konvid1k.json": (1200, 0, 1),
    "Konvid-1k_total_ds_score.json": (1200, 24.4, 92.8), "LIVE-VQC.json": (585, 6.22, 94.29),
    "YT_UGC.json": (1380, 1.242, 4.698), "YT_UGC1.json": (1098, 1.242, 4.677),
    "youtube_ugc_total.json": (1020, 1.242, 4.677), "YT-Gaming.json": (600, 0, 1),
    "CGVDS_total_score.json": (357, 1.71, 6.06), "live_hfr_total_score.json": (480, 10.36, 73.94),
    "kvq_train_score.json": (2926, 1.306, 4.5), "UGC_test.json": (4000, 8.28, 97.59),
}  # fmt: skip
VIDEOS = {"LSVQ_test_.json", "lsvq1080p.json", "konvid1k.json", "Konvid-1k_total_ds_score.json", "LIVE-VQC.json",
          "YT_UGC.json", "YT_UGC1.json", "youtube_ugc_total.json", "YT-Gaming.json", "CGVDS_total_score.json",
          "live_hfr_total_score.json", "kvq_train_score.json", "UGC_test.json"}  # fmt: skip

# Scores by a pattern over the text, without the importer: the last of "mos", "gt_score" and the number in an id.
SCORE = re.compile(r'"(?:mos|gt_score)":\s*"?(-?[\d.]+(?:e-?\d+)?)|->(-?[\d.]+)"')


@pytest.fixture(scope="module")
def lists(shared_data: Path) -> Path:
    return shared_data / "labels" / "vital_series"


def scores_by_pattern(text: str) -> list[float]:
    plain = [float(first) for first, _ in SCORE.findall(text) if first]
    return plain or [float(second) for _, second in SCORE.findall(text)]


def test_all_22_are_known_once():
    assert len(LISTS) == len(KNOWN) == 22
    assert {known.file for known in LISTS} == set(COUNTED)
    assert {known.file for known in LISTS if known.meaning.polarity is not Polarity.MOS} == {"test_csiq_866.json"}


@pytest.mark.parametrize("known", LISTS, ids=lambda known: known.file)
def test_rows_range_polarity_and_mean_are_the_known_ones(known: KnownList, lists: Path):
    path = lists / known.file
    found = import_file(path, Options())
    assert found.known is known
    rows, low, high = COUNTED[known.file]
    scores = found.frame["score"]
    assert len(found.frame) == known.rows == rows
    assert (scores.min(), scores.max()) == (pytest.approx(low, abs=5.1e-3), pytest.approx(high, abs=5.1e-3))
    independent = scores_by_pattern(path.read_text())
    assert len(independent) == rows
    mean = math.fsum(independent) / rows
    assert known.mean == pytest.approx(mean, abs=5.1e-7)
    assert math.fsum(scores) / rows == pytest.approx(mean, abs=1e-9)
    assert set(found.frame["modality"]) == {"video" if known.file in VIDEOS else "image"}
    assert set(found.frame["polarity"]) == {str(known.meaning.polarity)}
    assert found.frame["quality"].between(0, 1).all()
    assert found.frame["quality"].rank().equals(scores.rank())  # in all 22 more is better
    assert found.problems == []


def test_every_file_is_exported_as_the_same_bytes_through_a_table_on_disk(lists: Path, tmp_path: Path):
    for path in sorted(lists.glob("*.json")):
        found = import_file(path, Options())
        write_table(tmp_path / "table.parquet", found.table, found.frame)
        back = read_table(tmp_path / "table.parquet", found.table)
        assert found.table.to_arrow(back).equals(found.table.to_arrow(found.frame)), path.name
        text, changed = export_text(found.table, back)
        assert changed == 0
        assert text.encode() == path.read_bytes(), path.name


def test_a_wrong_declaration_of_a_known_list_is_refused(lists: Path):
    for meaning in (Meaning(Polarity.DMOS, -1, 0), Meaning(Polarity.MOS, -1, 0), Meaning(Polarity.NEGATED_DMOS, -2, 0)):
        with pytest.raises(StageError, match="is the known list CSIQ: negated_dmos from -1 to 0"):
            import_file(lists / "test_csiq_866.json", Options(meaning))
    right = import_file(lists / "test_csiq_866.json", Options(Meaning(Polarity.NEGATED_DMOS, -1, 0)))
    assert right.known is not None


def test_csiq_runs_the_right_way_by_an_independent_table_and_by_its_own_levels(lists: Path):
    other = (lists.parent / "csiq_name_score_std.tsv").read_text().splitlines()
    # LABELS.md beside that table calls it DMOS, lower is better; its numbers are 1 - DMOS: milder levels have more.
    table = {Path(name).name: float(score) for name, score, _ in (line.split() for line in other)}
    found = import_file(lists / "test_csiq_866.json", Options()).frame
    quality = {Path(path).name: value for path, value in zip(found["path"], found["quality"], strict=True)}
    assert quality == pytest.approx(table, abs=5.1e-4)
    blurs = [quality[name] for name in (f"1600.BLUR.{level}.png" for level in range(1, 6))]
    assert blurs == sorted(blurs, reverse=True)


def test_a_list_that_is_not_quite_the_known_one_is_not_known(lists: Path):
    values = json.loads((lists / "test_koniq.json").read_text())
    with pytest.raises(StageError, match="none of the known lists"):
        import_records(cut(json.dumps(values[:-1]), "x"), "test_koniq.json", Options())
    with pytest.raises(StageError, match="the level words"):
        import_records(cut(json.dumps(values[:-1]), "x"), "x", Options(Meaning(Polarity.DMOS, 0, 100)))
    same = import_records(cut(json.dumps(values, indent=1), "x"), "renamed.json", Options())
    assert same.known is not None  # another layout, the same list


def test_a_fingerprint_is_of_paths_and_numbers_in_order():
    one = fingerprint(["a", "b"], [1.0, 2.0])
    assert one == fingerprint(["a", "b"], [1.0, 2.0])
    assert one != fingerprint(["b", "a"], [2.0, 1.0])
    assert one != fingerprint(["a", "b"], [1.0, 2.5])


def test_the_page_of_data_holds_the_table_of_the_lists(checkout: Path):
    page = (checkout / "docs" / "data.md").read_text().splitlines()
    told = [row for row in page if row.startswith("| `") and ".json` |" in row]
    assert told == [
        f"| `{known.file}` | {known.title} | {known.rows} | {known.meaning.low:g} to {known.meaning.high:g} | "
        f"{known.meaning.polarity} | {known.mean:.4f} | {known.note} |"
        for known in LISTS
    ]
