"""The VITAL authors' 22 evaluation lists: what their numbers mean, stated once, and by what a list is recognised.

A list is recognised by its paths and numbers, never by its file name. Ends of scales are those of the data sets'
publications, except where a note says that they are ours. Means are those of the files' own numbers.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tasks.human_scale import Meaning, Polarity


@dataclass(frozen=True)
class KnownList:
    """One list.

    Attributes:
        title: of the data set. file: its name in the authors' repository. rows: number of media.
        mean: of the numbers as they stand. meaning: polarity and scale. mark: its fingerprint. note: what to know.
    """

    title: str
    file: str
    rows: int
    mean: float
    meaning: Meaning
    mark: str
    note: str = ""


def fingerprint(paths: Sequence[str], scores: Sequence[float]) -> str:
    """What a list says, in 16 hex digits: equal for equal paths and numbers in equal order, whatever the layout."""
    told = "\n".join(f"{path}\t{score!r}" for path, score in zip(paths, scores, strict=True))
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _mos(low: float, high: float) -> Meaning:
    return Meaning(Polarity.MOS, low, high)


_MINMAX: Final = "MOS, min-max normalised by the authors"
LISTS: Final = (
    KnownList("KonIQ-10k test", "test_koniq.json", 2010, 58.751546, _mos(0, 100), "829f8c0f6eb167ed"),
    KnownList("SPAQ test", "test_spaq.json", 2224, 49.863161, _mos(0, 100), "5cd9163f1dc0cc5a"),
    KnownList(
        "KADID-10k test",
        "test_kadid.json",
        2000,
        3.03149,
        _mos(1, 5),
        "c788c54a5d492387",
        "its authors call it DMOS, and higher is better; only in the ids",
    ),
    KnownList("AGIQA-3K", "agi.json", 2982, 2.500417, _mos(0, 5), "aa759b2cf78a5ab5", "in quotes"),
    KnownList(
        "LIVE Challenge",
        "livec.json",
        1169,
        55.388736,
        _mos(0, 100),
        "4cd8918e8fcf78bf",
        "reserved for acceptance: for tests of the importer alone",
    ),
    KnownList("BID", "test_BID.json", 586, 2.952711, _mos(0, 5), "75b5679b6a1e6bf5"),
    KnownList(
        "CSIQ",
        "test_csiq_866.json",
        866,
        -0.350744,
        Meaning(Polarity.NEGATED_DMOS, -1, 0),
        "8bcdf48f419fff97",
        "minus DMOS",
    ),
    KnownList("TID2013", "test_tid2013_3k.json", 3000, 4.474657, _mos(0, 9), "06c33f2499b7b4af"),
    KnownList("4K test", "4K_test.json", 1191, 3.300735, _mos(1, 5), "6e8e439b8126fc88", "private; the scale is ours"),
    KnownList("LSVQ test", "LSVQ_test_.json", 7182, 59.909576, _mos(0, 100), "713d8ac8cd602395"),
    KnownList("LSVQ 1080p", "lsvq1080p.json", 3573, 0.659957, _mos(0, 1), "420fc7665069eb65", _MINMAX),
    KnownList("KoNViD-1k, normalised", "konvid1k.json", 1200, 0.529099, _mos(0, 1), "8cede69812843294", _MINMAX),
    KnownList(
        "KoNViD-1k, times 20",
        "Konvid-1k_total_ds_score.json",
        1200,
        60.590396,
        _mos(0, 100),
        "e188580426a723b9",
        "MOS of 1 to 5, times 20, in quotes",
    ),
    KnownList("LIVE-VQC", "LIVE-VQC.json", 585, 63.291118, _mos(0, 100), "6736b2bf16a64d68"),
    KnownList("YouTube-UGC", "YT_UGC.json", 1380, 3.542948, _mos(1, 5), "064f348ab8966173"),
    KnownList("YouTube-UGC, cut to 20 s", "YT_UGC1.json", 1098, 3.535352, _mos(1, 5), "7a399a159a76cd12"),
    KnownList(
        "YouTube-UGC, 1020 clips", "youtube_ugc_total.json", 1020, 3.536455, _mos(1, 5), "cf63c88d0954f7f9", "in quotes"
    ),
    KnownList("LIVE-YT-Gaming", "YT-Gaming.json", 600, 0.679653, _mos(0, 1), "6d60461d78c42e28", _MINMAX),
    KnownList(
        "CGVDS",
        "CGVDS_total_score.json",
        357,
        4.017227,
        _mos(1, 7),
        "424b1592a85d3db7",
        "in quotes; a seven-point scale, its ends are ours",
    ),
    KnownList(
        "LIVE-YT-HFR", "live_hfr_total_score.json", 480, 49.985097, _mos(0, 100), "48637e8c130a12b0", "in quotes"
    ),
    KnownList("KVQ train", "kvq_train_score.json", 2926, 3.223388, _mos(1, 5), "b67ea341b6304aff", "in quotes"),
    KnownList(
        "UGC test", "UGC_test.json", 4000, 54.766217, _mos(0, 100), "e741ac5b22317550", "unnamed; the scale is ours"
    ),
)
"""All of them: images, then videos."""

KNOWN: Final = {known.mark: known for known in LISTS}
"""Fingerprint -> list."""
