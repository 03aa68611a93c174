"""The report: its figures are SQL's, hostile text stays text, it needs nothing but itself, and nothing has to exist."""

from __future__ import annotations

import contextlib
import hashlib
import html
import io
import itertools
import re
import shlex
import tarfile
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from literal_crawls import Shot, write_crawl
from PIL import Image
from sql_bins import sql_bins

from warehouse import lake
from warehouse.errors import InputError
from warehouse.publish import publish
from warehouse.report.charts import histogram_chart, line_chart, ticks
from warehouse.report.data import CorpusReport, Histogram, bin_width, read_corpus
from warehouse.report.gallery import Face, figure_uri, read_gallery
from warehouse.report.page import EXAMPLE_QUERIES, ModelReport, percent, render_page, web_link, write_page
from warehouse.report.reasons import SENTENCES
from warehouse.schema import Reason

HOSTILE = "A woman <script>alert(1)</script> \"><img src=x onerror='alert(2)'> {{ 7*7 }} & friends"
SHOTS = [
    *(Shot(f"good{i}", page=f"p{i % 3}", face_px=70.0 + 10 * i, score=0.6 + 0.03 * i) for i in range(9) if i != 1),
    Shot("hostile", page='p"><script>', captions=(("alt", HOSTILE),)),
    Shot("refused", refused="robots_txt"),
    Shot("good1", page="no", refused="page_opted_out"),
    Shot("good1", page="p1", face_px=80.0, score=0.63),
    Shot("gone", failed="http_client_error"),
    Shot("web-page", failed="not_an_image"),
    Shot("broken", decode="truncated_image"),
    Shot("crowd", faces=3),
    Shot("landscape", faces=0),
    Shot("tiny", face_px=20.0),
    Shot("mute", captions=()),
    Shot("copy", page="p9", content="good0", captions=(("nearby", "A smiling woman with brown hair"),)),
]


def _jpeg(seed: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (256, 256), tuple(hashlib.sha256(seed.encode()).digest()[:3])).save(out, "JPEG")
    return out.getvalue()


def _write_shards(root: Path) -> None:
    """One tar with a crop per kept row, as the shard step leaves it, and its row in the lake."""
    folder = root / "shards" / "r00001"
    folder.mkdir(parents=True)
    with contextlib.closing(lake.connect(root, read_only=False)) as con:
        ids = [row for (row,) in con.execute("SELECT row_id FROM corpus ORDER BY row_id").fetchall()]
        with tarfile.open(folder / "train-00000.tar", "w") as tar:
            for row in ids:
                for name, data in ((f"{row}.jpg", _jpeg(row)), (f"{row}.json", b"{}")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        con.execute(
            "INSERT INTO shards VALUES (1, 'train', 'shards/r00001/train-00000.tar', 'ab12', ?, 10240)", [len(ids)]
        )


def _root(path: Path, shots: Sequence[Shot], shards: bool = True) -> Path:
    publish(
        path, [write_crawl(path / "raw" / "test-1" / "g000", shots)], provenance={"run_id": "r1", "code_version": "1"}
    )
    if shards:
        _write_shards(path)
    return path


def _read(root: Path) -> tuple[CorpusReport, tuple[Face, ...]]:
    with contextlib.closing(lake.connect(root)) as con:
        corpus = read_corpus(con)
        return corpus, read_gallery(con, root, corpus.release)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _root(tmp_path_factory.mktemp("root"), SHOTS)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return render_page(root, *_read(root), None)


class _Elements(HTMLParser):
    """All elements with their attributes, and the text outside style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_figures_equal_those_of_sql(root: Path, page: str) -> None:
    with contextlib.closing(lake.connect(root)) as con:
        kept = con.execute("SELECT count(*) FROM corpus").fetchall()[0][0]
        funnel = con.execute("SELECT reason, pairs FROM funnel ORDER BY stage_order").fetchall()
        pairs = con.execute("SELECT count(*) FROM pairs").fetchall()[0][0]
    corpus, _ = _read(root)
    assert (corpus.pairs, corpus.kept) == (pairs, kept) == (len(SHOTS), 10)
    assert f'<span class="label">Kept</span><b>{kept}</b>' in page
    assert f'<span class="label">Pairs found</span><b>{pairs}</b>' in page
    for reason, count in funnel:
        if reason != "kept":
            assert f'<code>{reason}</code></th><td class="n">{count}</td>' in page, reason
    assert [(r.reason, r.pairs) for r in corpus.reasons] == funnel


def test_funnel_falls_from_all_pairs_to_the_kept_ones(root: Path) -> None:
    corpus, _ = _read(root)
    assert [step.pairs for step in corpus.funnel] == [20, 18, 16, 15, 12, 11, 10]
    assert corpus.with_face == 15  # several and tiny faces, no caption, the copy, and the one that is refused


def test_pair_whose_picture_another_page_allowed_is_explained(root: Path, page: str) -> None:
    corpus, _ = _read(root)
    assert (corpus.downloaded, corpus.funnel[2].pairs) == (17, 16)
    assert "show a picture which another page allowed (1)" in page


def test_histograms_count_every_picture_once(root: Path) -> None:
    corpus, _ = _read(root)
    faces, scores, sides = corpus.histograms
    assert sum(faces.found) == 13 == sum(scores.found)  # distinct pictures with a face
    assert sum(faces.kept) == sum(scores.kept) == sum(sides.kept) == corpus.kept
    assert sum(sides.found) == 14
    assert faces.threshold == 64
    assert all(k <= f for h in corpus.histograms for k, f in zip(h.kept, h.found, strict=True))


@pytest.mark.parametrize(
    ("title", "measure", "table"),
    [
        ("Face size", "face_px", "faces WHERE face_index = 0"),
        ("Detection score", "score", "faces WHERE face_index = 0"),
        ("Picture size, shorter side", "least(width_px, height_px)::FLOAT", "pictures WHERE reason IS NULL"),
    ],
)
def test_every_bin_of_a_histogram_is_that_of_sql(root: Path, title: str, measure: str, table: str) -> None:
    corpus, _ = _read(root)
    chart = next(chart for chart in corpus.histograms if chart.title == title)
    with contextlib.closing(lake.connect(root)) as con:
        bins = sql_bins(con, chart, f"SELECT image_id, {measure} AS x FROM {table}")
    assert list(zip(chart.found, chart.kept, strict=True)) == bins
    assert len(chart.found) > 1 or title.startswith("Picture"), "one bar proves nothing"


def test_hostile_text_stays_text(root: Path, page: str) -> None:
    parsed = _Elements(page)
    assert HOSTILE in parsed.text
    assert "<script" not in page and "49" not in parsed.text.split("friends")[0][-40:]
    assert not [a for _, attributes in parsed.elements for a in attributes if a.startswith("on")]
    assert not {tag for tag, _ in parsed.elements} & {"script", "iframe", "object", "embed", "form", "base", "link"}


def test_page_asks_for_nothing_outside_itself(page: str) -> None:
    parsed = _Elements(page)
    sources = [a["src"] for _, a in parsed.elements if "src" in a]
    assert len(sources) == 10
    assert all(source and source.startswith("data:image/") for source in sources)
    assert "url(" not in page and "@import" not in page and "srcset" not in page
    policy = next(a["content"] for t, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'; img-src data:")
    links = [a for tag, a in parsed.elements if tag == "a" and not (a["href"] or "").startswith("#")]
    assert links and all("noopener" in (a["rel"] or "") and "nofollow" in (a["rel"] or "") for a in links)


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//host/x", "http://[x"]
)
def test_only_web_addresses_become_links(url: str) -> None:
    assert web_link(url) == ""


def test_every_picture_has_an_alternative_text(page: str) -> None:
    elements = _Elements(page).elements
    assert all(a.get("alt") for tag, a in elements if tag == "img")
    assert all(a.get("aria-label") for tag, a in elements if a.get("role") == "img")


def test_gallery_is_a_fixed_choice_with_small_pictures(root: Path) -> None:
    with contextlib.closing(lake.connect(root)) as con:
        faces = read_gallery(con, root, 1, count=4)
        assert faces == read_gallery(con, root, 1, count=4)
        wanted = con.execute("SELECT row_id FROM corpus ORDER BY row_id LIMIT 4").fetchall()
    assert [f.row_id for f in faces] == [row for (row,) in wanted]
    assert all(len(f.thumbnail) < 20_000 for f in faces)
    assert len({f.thumbnail for f in faces}) == 4


def test_page_is_deterministic_and_written_whole(root: Path, page: str, tmp_path: Path) -> None:
    path = write_page(tmp_path / "reports" / "index.html", page)
    assert path.read_text("utf-8") == page == render_page(root, *_read(root), None)
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


@pytest.mark.e2e
def test_without_any_kept_face_the_page_says_why(tmp_path: Path) -> None:
    root = _root(tmp_path, [Shot("gone", failed="dns"), Shot("no", refused="robots_txt")], shards=False)
    corpus, faces = _read(root)
    page = render_page(root, corpus, faces, None)
    assert (corpus.kept, faces) == (0, ())
    assert "No pair of this release was kept" in page and "No picture was decoded" in page
    assert "<code>robots_txt</code>" in page and "<code>dns</code>" in page


def test_kept_rows_without_shards_name_the_command(root: Path) -> None:
    assert "gptface shard --root" in render_page(root, _read(root)[0], (), None)


def test_lake_without_a_release_is_a_clear_error(tmp_path: Path) -> None:
    lake.create(tmp_path)
    with contextlib.closing(lake.connect(tmp_path)) as con, pytest.raises(InputError, match="no release to report on"):
        read_corpus(con)


def test_example_queries_on_the_page_run(root: Path, page: str) -> None:
    with contextlib.closing(lake.connect(root)) as con:
        for query in EXAMPLE_QUERIES:
            assert con.execute(query).fetchall()
            assert html.escape(shlex.quote(query), quote=True).replace("&#x27;", "&#39;") in page


def test_page_without_a_model_names_the_command(page: str) -> None:
    assert "No model yet: <code>gptface train" in page


def test_model_without_evaluation_names_the_command(root: Path) -> None:
    page = render_page(root, *_read(root), ModelReport(name="<b>demo"))
    assert "Not evaluated yet" in page
    assert "&lt;b&gt;demo" in page and "<b>demo" not in page


def test_every_reason_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Reason)
    assert all(s.endswith(".") for s in SENTENCES.values())


def test_line_chart_leaves_out_what_is_not_finite_and_thins() -> None:
    points = [(float(i), 1 / (i + 1)) for i in range(10_000)]
    chart = line_chart("Loss", [("a", [*points, (10_000.0, float("nan"))]), ("b", [])])
    assert chart is not None and [line.name for line in chart.lines] == ["a"]
    assert len(chart.lines[0].points.split()) <= 160
    assert "nan" not in chart.lines[0].points
    xy = [tuple(map(float, p.split(","))) for p in chart.lines[0].points.split()]
    assert all(chart.left <= x <= chart.right and chart.top <= y <= chart.bottom for x, y in xy)
    assert line_chart("Loss", [("a", [])]) is None


def test_bars_of_a_histogram_hold_their_counts() -> None:
    chart = histogram_chart(Histogram("Face size", "px", 60.0, 10.0, (4, 8), (0, 8), True, 64.0, 72.0, 75.0))
    assert chart is not None and chart.threshold is not None
    assert [b.label for b in chart.bars] == ["60 to 70 px: 4 found, 0 kept", "70 and more px: 8 found, 8 kept"]
    assert chart.bars[1].y == chart.bars[1].y_kept == chart.top < chart.bars[0].y
    assert chart.bars[0].y_kept == chart.bottom


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.37, 0.371), (-3.0, 12_345.0), (5.0, 5.0), (0.0, 0.0)])
def test_ticks_are_round_and_cover_the_range(low: float, high: float) -> None:
    values = ticks(low, high)
    assert values[0] <= low and values[-1] >= high and 2 <= len(values) <= 9
    assert all(b > a for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("span", [0.0, 1e-3, 0.4, 17.0, 300.0, 12_000.0])
def test_bin_width_is_round_and_fits(span: float) -> None:
    width = bin_width(span)
    assert span / width <= 23
    assert re.fullmatch(r"(1|2|2\.5|5)0*e[+-]\d+", f"{width:.1e}".replace(".0e", "e"))


def test_percent_shows_small_shares() -> None:
    assert [percent(s) for s in (1.0, 0.87, 0.0421, 0.0003, 0.0)] == ["100 %", "87.0 %", "4.2 %", "0.03 %", "0 %"]


def test_figures_of_a_model_are_drawn_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (3000, 30)).save(path)
    uri, width, height = figure_uri(path)
    assert uri.startswith("data:image/png;base64,") and (width, height) == (1400, 14)
    path.write_bytes(b"<svg onload='x'/>")
    with pytest.raises(InputError, match="no PNG"):
        figure_uri(path)
