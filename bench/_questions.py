"""Eight questions about a corpus, each in SQL on our views and as pyarrow.dataset and pandas on the same Parquet files.

The other side is written as somebody who knows these libraries would: only the columns that are needed, filters in the
scan (with the statistics of row groups), a sample taken before it becomes Python objects. Tuned, it is also told which
columns have few values: they are then read as dictionaries and grouped as categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as ds

Answer = list[tuple[Any, ...]]
_FEW_VALUES = ("reason", "split", "image_host", "caption_kind")
SAMPLE_ROWS = 1000


class Files:
    """The Parquet files of the lake's tables as datasets, opened once."""

    def __init__(self, files: Mapping[str, list[str]], is_tuned: bool = False) -> None:
        import pyarrow.dataset as ds

        self._datasets = {}
        for table, paths in files.items():
            format = ds.ParquetFileFormat(
                read_options=ds.ParquetReadOptions(dictionary_columns=_FEW_VALUES if is_tuned else None)
            )
            self._datasets[table] = ds.dataset(paths, format=format)

    def frame(self, table: str, columns: list[str], where: ds.Expression | None = None) -> pd.DataFrame:
        """Rows of the current release."""
        found: pd.DataFrame = self.table(table, columns, where).to_pandas()
        return found

    def table(self, table: str, columns: list[str], where: ds.Expression | None = None) -> pa.Table:
        """The same as an Arrow table."""
        import pyarrow.dataset as ds

        current = ds.field("release_to").is_null()
        wanted = current if where is None else current & where
        return self._datasets[table].to_table(columns=columns, filter=wanted)


@dataclass(frozen=True)
class Question:
    """`is_sample`: any rows do, if they are of the corpus; else both sides must answer the same."""

    name: str
    sql: str
    other: Callable[[Files], Answer]
    is_sample: bool = False


def _count_by_reason(files: Files) -> Answer:
    counts = files.frame("decisions", ["reason"])["reason"].value_counts()
    return _sorted((reason, int(n)) for reason, n in counts.items())


def _funnel_by_host(files: Files) -> Answer:
    frame = files.frame("decisions", ["image_host", "reason"])
    by_host = frame.groupby(["image_host", "reason"], observed=True).size().unstack(fill_value=0)
    refused = by_host["robots_txt"] + by_host["page_opted_out"]
    failed = by_host["timeout"] + by_host["http_client_error"]
    pairs = by_host.sum(axis=1)
    rows = zip(by_host.index, pairs, refused, failed, by_host["kept"], strict=True)
    return sorted((tuple(row) for row in rows), key=lambda row: (-row[1], row[0]))[:20]


def _faces_over(files: Files) -> Answer:
    import pyarrow.dataset as ds

    frame = files.frame("corpus", ["split", "face_px"], ds.field("face_px") >= 256)
    found = frame.groupby("split", observed=True)["face_px"].agg(["size", "mean"])
    return _sorted((split, int(n), float(mean)) for split, n, mean in found.itertuples())


def _captions_with(files: Files) -> Answer:
    import pyarrow.compute as pc

    matches = pc.match_substring(pc.field("caption"), "glasses", ignore_case=True)
    counts = files.frame("corpus", ["caption_kind"], matches)["caption_kind"].value_counts()
    return _sorted((kind, int(n)) for kind, n in counts.items() if n)


def _balance(files: Files) -> Answer:
    import numpy as np
    import pandas as pd

    frame = files.frame("corpus", ["brightness", "yaw_deg", "score"])
    light = pd.cut(frame["brightness"], [-np.inf, 80, 160, np.inf], right=False, labels=["dark", "medium", "bright"])
    pose = pd.cut(frame["yaw_deg"].abs(), [-1, 15, 45, np.inf], right=False, labels=["frontal", "turned", "profile"])
    found = frame["score"].groupby([light, pose], observed=True).agg(["size", "mean"])
    return _sorted((*group, int(n), float(mean)) for group, n, mean in found.itertuples())


def _what_if(files: Files) -> Answer:
    frame = files.frame("corpus", ["image_host", "face_px"])
    frame["lost"] = frame["face_px"] < 96
    found = frame.groupby("image_host", observed=True)["lost"].agg(["size", "sum"])
    rows = [(host, int(n), int(lost)) for host, n, lost in found.itertuples()]
    return sorted(rows, key=lambda row: (-row[2], row[0]))[:20]


def _asked_again(files: Files) -> Answer:
    import pyarrow.dataset as ds

    asked = files.frame("images", ["image_id", "attempts"], ds.field("attempts") > 1)
    large = files.frame("corpus", ["image_id", "image_host"], ds.field("face_px") >= 384)
    joined = large.merge(asked, on="image_id")
    found = joined.groupby("image_host", observed=True)["attempts"].agg(["size", "max"])
    rows = [(host, int(n), int(most)) for host, n, most in found.itertuples()]
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:20]


def _random_sample(files: Files) -> Answer:
    import numpy as np

    table = files.table("corpus", ["row_id", "caption", "face_px"])
    rows = np.random.default_rng().choice(table.num_rows, SAMPLE_ROWS, replace=False)
    return list(table.take(rows).to_pandas().itertuples(index=False, name=None))


QUESTIONS = (
    Question(
        "count by reason", "SELECT reason, count(*) FROM decisions GROUP BY reason ORDER BY reason", _count_by_reason
    ),
    Question(
        "funnel by host",
        """SELECT image_host, count(*) AS pairs,
                  count(*) FILTER (reason IN ('robots_txt', 'page_opted_out')) AS refused,
                  count(*) FILTER (reason IN ('timeout', 'http_client_error')) AS failed,
                  count(*) FILTER (kept) AS kept
           FROM decisions GROUP BY image_host ORDER BY pairs DESC, image_host LIMIT 20""",
        _funnel_by_host,
    ),
    Question(
        "faces over a size",
        "SELECT split, count(*), avg(face_px) FROM corpus WHERE face_px >= 256 GROUP BY split ORDER BY split",
        _faces_over,
    ),
    Question(
        "captions with a word",
        """SELECT caption_kind, count(*) FROM corpus WHERE caption ILIKE '%glasses%'
           GROUP BY caption_kind ORDER BY caption_kind""",
        _captions_with,
    ),
    Question(
        "balance by group",
        """SELECT ['dark', 'medium', 'bright'][1 + light] AS light, ['frontal', 'turned', 'profile'][1 + pose] AS pose,
                  faces, mean_score
           FROM (SELECT (brightness >= 80)::UTINYINT + (brightness >= 160)::UTINYINT AS light,
                        (abs(yaw_deg) >= 15)::UTINYINT + (abs(yaw_deg) >= 45)::UTINYINT AS pose,
                        count(*) AS faces, avg(score) AS mean_score FROM corpus GROUP BY ALL) ORDER BY light, pose""",
        _balance,
    ),
    Question(
        "what-if of a threshold",
        """SELECT image_host, count(*) AS kept, count(*) FILTER (face_px < 96) AS lost
           FROM corpus GROUP BY image_host ORDER BY lost DESC, image_host LIMIT 20""",
        _what_if,
    ),
    Question(
        "join to images",
        """SELECT c.image_host, count(*) AS faces, max(i.attempts) AS most_attempts
           FROM corpus c JOIN (SELECT image_id, attempts FROM images WHERE attempts > 1) i USING (image_id)
           WHERE c.face_px >= 384 GROUP BY c.image_host ORDER BY faces DESC, c.image_host LIMIT 20""",
        _asked_again,
    ),
    Question(
        "random sample",
        f"SELECT row_id, caption, face_px FROM corpus USING SAMPLE reservoir({SAMPLE_ROWS} ROWS)",
        _random_sample,
        is_sample=True,
    ),
)


def _sorted(rows: Any) -> Answer:
    return sorted(tuple(row) for row in rows)
