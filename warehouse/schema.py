"""The tables of the corpus as code: Arrow schemas, the closed enums, and the identities of rows.

Every writer casts to a schema from here and fails loudly; every status and reason is a member of a closed enum.
Identity is content, never position, so a re-run, another machine or another part size names the same things alike.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import pyarrow as pa

_ID_BYTES = 16  # 128 bits: 1e-19 chance of one collision among 1e9 rows (birthday bound)


class CaptionKind(StrEnum):
    """Where on the page a caption candidate stood."""

    ALT = "alt"
    TITLE = "title"
    ARIA_LABEL = "aria_label"
    FIGCAPTION = "figcaption"
    NEARBY = "nearby"
    CARD = "card"
    META = "meta"
    LIST = "list"


class Status(StrEnum):
    """How far one image address came."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a row was not kept; `KEPT` where it was. Closed: a new reason is added here first, then used."""

    KEPT = "kept"
    # consent: decided before any byte of the picture is asked for, or by the answer's own headers
    ROBOTS_TXT = "robots_txt"
    ROBOTS_UNREACHABLE = "robots_unreachable"
    PAGE_OPTED_OUT = "page_opted_out"
    IMAGE_OPTED_OUT = "image_opted_out"
    HOST_OPTED_OUT = "host_opted_out"
    # address and transfer
    BAD_ADDRESS = "bad_address"
    PRIVATE_ADDRESS = "private_address"
    DNS = "dns"
    CONNECT = "connect"
    TIMEOUT = "timeout"
    HTTP_CLIENT_ERROR = "http_client_error"
    HTTP_SERVER_ERROR = "http_server_error"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    TOO_LARGE = "too_large"
    BROKEN_TRANSFER = "broken_transfer"
    EMPTY_BODY = "empty_body"
    INTERNAL_ERROR = "internal_error"
    # picture
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED_IMAGE = "truncated_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    # face
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    FACE_SCORE = "face_score"
    FACE_PX = "face_px"
    # caption
    NO_CAPTION = "no_caption"
    CAPTION_BOILERPLATE = "caption_boilerplate"
    CAPTION_TOO_SHORT = "caption_too_short"
    # among rows
    DUPLICATE_IMAGE = "duplicate_image"
    NEAR_DUPLICATE_IMAGE = "near_duplicate_image"


class Split(StrEnum):
    TRAIN = "train"
    VAL = "val"
    TEST = "test"


def content_id(*parts: str) -> str:
    """32 hex digits of BLAKE2b over the UTF-8 parts, separated by NUL (which no URL holds)."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).hexdigest()


def row_id(page_url: str, image_url: str) -> str:
    """Identity of a pair: a picture on a page. Its captions are children, so better captions rename nothing."""
    return content_id(page_url, image_url)


def url_id(image_url: str) -> str:
    """Identity of an image address: the unit of consent and download, shared by all pages that show it."""
    return content_id(image_url)


def _schema(*fields: tuple[str, pa.DataType] | tuple[str, pa.DataType, bool]) -> pa.Schema:
    """Fields are `(name, type)`, not null, or `(name, type, True)` where null is allowed."""
    return pa.schema([pa.field(f[0], f[1], nullable=len(f) > 2 and bool(f[2])) for f in fields])


_S, _I32, _I64, _F32, _BOOL = pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.bool_()
_TIME = pa.timestamp("us", tz="UTC")

# One row per picture on a page. `page_directives` are the page's own robots directives and reservation, as found
# (header and meta joined, lower case), for the consent step.
PAIRS = _schema(
    ("row_id", _S),
    ("url_id", _S),
    ("page_url", _S),
    ("image_url", _S),
    ("page_host", _S),  # scheme://authority: the unit of robots.txt
    ("image_host", _S),
    ("source", _S),
    ("page_directives", _S),
)

# All texts of a pair, ranked by the extractor (0 = its choice).
CAPTIONS = _schema(("row_id", _S), ("rank", _I32), ("kind", _S), ("text", _S))

# The verdict per pair; `reason` is a consent reason where refused. `evidence` names what said so.
CONSENT = _schema(
    ("row_id", _S), ("url_id", _S), ("allowed", _BOOL), ("reason", _S, True), ("evidence", _S), ("checked_at", _TIME)
)

# robots.txt (and later tdmrep.json) per scheme://authority, valid for 24 hours.
HOSTS = _schema(("host", _S), ("robots_status", _I32), ("robots_txt", _S), ("checked_at", _TIME))

# One row per image address: what the download found. The bytes lie in `raw_shard` (path below the root) at
# [raw_offset, raw_offset + raw_bytes).
IMAGES = _schema(
    ("url_id", _S),
    ("image_url", _S),
    ("status", _S),
    ("reason", _S, True),
    ("error", _S, True),
    ("http_status", _I32, True),
    ("image_id", _S, True),  # sha256 of the bytes
    ("raw_shard", _S, True),
    ("raw_offset", _I64, True),
    ("raw_bytes", _I64, True),
    ("attempts", _I32),
    ("fetched_at", _TIME),
)

# One row per distinct picture (image_id): what decoding found. Sizes are after EXIF orientation.
PICTURES = _schema(
    ("image_id", _S),
    ("reason", _S, True),
    ("width_px", _I32, True),
    ("height_px", _I32, True),
    ("format", _S, True),
    ("phash", _S, True),  # 16 hex digits
    ("face_count", _I32, True),
    ("detector", _S),  # name, model sha256 prefix, parameters
)

# One row per face, the largest first. Coordinates are pixels of the upright picture.
FACES = _schema(
    ("image_id", _S),
    ("face_index", _I32),
    ("x0_px", _F32),
    ("y0_px", _F32),
    ("x1_px", _F32),
    ("y1_px", _F32),
    ("points_px", pa.list_(_F32)),  # x, y of left eye, right eye, nose, left and right mouth corner, as seen
    ("score", _F32),
    ("face_px", _F32),  # shorter side of the box
    ("roll_deg", _F32),
    ("yaw_deg", _F32),
    ("pitch_deg", _F32),
    ("sharpness", _F32),
    ("brightness", _F32),
)

# What was decided about each pair, with the caption that was chosen and the split of its duplicate cluster.
DECISIONS = _schema(
    ("row_id", _S),
    ("kept", _BOOL),
    ("reason", _S),
    ("caption", _S, True),
    ("caption_kind", _S, True),
    ("cluster_id", _S, True),
    ("split", _S, True),
)

# The kept pairs, joined once at publish, so that a question about the corpus is a scan of one table.
CORPUS = _schema(
    ("row_id", _S),
    ("image_id", _S),
    ("page_url", _S),
    ("image_url", _S),
    ("page_host", _S),
    ("image_host", _S),
    ("caption", _S),
    ("caption_kind", _S),
    ("split", _S),
    ("cluster_id", _S),
    ("width_px", _I32),
    ("height_px", _I32),
    ("format", _S),
    ("x0_px", _F32),
    ("y0_px", _F32),
    ("x1_px", _F32),
    ("y1_px", _F32),
    ("points_px", pa.list_(_F32)),
    ("score", _F32),
    ("face_px", _F32),
    ("roll_deg", _F32),
    ("yaw_deg", _F32),
    ("pitch_deg", _F32),
    ("sharpness", _F32),
    ("brightness", _F32),
    ("phash", _S),
    ("detector", _S),
    ("source", _S),
    ("raw_shard", _S),
    ("raw_offset", _I64),
    ("raw_bytes", _I64),
)

# The ledger of what was read: one row per crawl that was published, with the release that first saw it.
SOURCES = _schema(
    ("crawl", _S),  # path below the root
    ("source", _S),
    ("parts", _I64),
    ("pairs", _I64),
    ("release", _I64),
)

# One row per release. `config`, `rules`, `inputs` and `counts` are JSON objects.
RELEASES = _schema(
    ("release", _I64),
    ("created_at", _TIME),
    ("run_id", _S),
    ("code_version", _S),
    ("config", _S),
    ("rules", _S),
    ("inputs", _S),
    ("counts", _S),
)

# Shards written from a release; `file` is the path below the root.
SHARDS = _schema(("release", _I64), ("split", _S), ("file", _S), ("sha256", _S), ("samples", _I64), ("bytes", _I64))

# Trained models; `path` lies below the root, `shards_sha256` is the hash of the index.json that was trained on.
MODELS = _schema(
    ("model", _S),
    ("kind", _S),
    ("preset", _S),
    ("path", _S),
    ("release", _I64, True),
    ("shards_sha256", _S, True),
    ("alias", _S, True),
    ("metrics", _S, True),  # JSON
    ("run_id", _S),
    ("created_at", _TIME),
)

# One row per measured figure of a model, beside its chance level or baseline.
EVALUATIONS = _schema(
    ("model", _S),
    ("release", _I64),
    ("metric", _S),
    ("value", pa.float64()),
    ("baseline", pa.float64(), True),
    ("low", pa.float64(), True),  # 95 % interval
    ("high", pa.float64(), True),
    ("samples", _I64, True),
    ("run_id", _S),
    ("created_at", _TIME),
)

# What ran, when and where: the only place for time, host and versions.
RUNS = _schema(
    ("run_id", _S),
    ("kind", _S),
    ("status", _S),
    ("started_at", _TIME),
    ("duration_s", pa.float64(), True),
    ("host", _S),
    ("code_version", _S),
    ("config", _S),  # JSON
    ("result", _S, True),  # JSON
)
