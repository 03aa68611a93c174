"""The tables of the corpus as code: Arrow schemas, the closed enums, and the identities of rows.

Every writer casts to a schema from here and fails loudly; every status and reason is a member of a closed enum.
Identity is content, never position, so a re-run, another machine or another part size names the same things alike.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
from collections.abc import Callable
from enum import StrEnum

import pyarrow as pa

_ID_BYTES = 16  # 128 bits: 1e-19 chance of one collision among 1e9 rows (birthday bound)
_ADDRESS = re.compile(r"https?://[^\s\"<>\\`]{1,8192}")
GONE_LINK = "https://taken-down.invalid"  # in captions, for an address that was taken down (.invalid: RFC 2606)
_MAY_END = re.compile(r"[',;|)\]}]")  # legal in an address, and usual behind one
_MAX_ENDS = 32  # looked at per address


class CaptionKind(StrEnum):
    """Where on the page a caption candidate stood."""

    ALT = "alt"
    TITLE = "title"
    ARIA_LABEL = "aria_label"
    FIGCAPTION = "figcaption"
    NEARBY = "nearby"
    CARD = "card"
    TABLE_ROW = "table_row"
    META = "meta"  # og: and twitter: title and description
    JSON_LD = "json_ld"
    LIST = "list"
    PAGE_TITLE = "page_title"  # <title>: tells what the page is about; never chosen as a caption


# Texts written for the picture come first, then those of what holds it, then those of the page and its section.
CAPTION_RANKING = (
    CaptionKind.ALT,
    CaptionKind.LIST,
    CaptionKind.FIGCAPTION,
    CaptionKind.ARIA_LABEL,
    CaptionKind.TITLE,
    CaptionKind.JSON_LD,
    CaptionKind.CARD,
    CaptionKind.TABLE_ROW,
    CaptionKind.META,
    CaptionKind.NEARBY,
    CaptionKind.PAGE_TITLE,
)


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
    TDM_RESERVED = "tdm_reserved"  # by the host's /.well-known/tdmrep.json
    HOST_OPTED_OUT = "host_opted_out"
    TAKEN_DOWN = "taken_down"  # on its way out: such rows leave a crawl before it is published
    # address and transfer
    BAD_ADDRESS = "bad_address"
    PRIVATE_ADDRESS = "private_address"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    HTTP_CLIENT_ERROR = "http_client_error"
    HTTP_SERVER_ERROR = "http_server_error"
    RATE_LIMITED = "rate_limited"  # 429, or 503 with Retry-After
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
    IMAGE_TYPE = "image_type"
    # content, by what texts and addresses say
    BLOCKED = "blocked"
    NSFW = "nsfw"
    MINOR = "minor"
    # face
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    FACE_SCORE = "face_score"
    FACE_PX = "face_px"
    FACE_POSE = "face_pose"
    FACE_BLURRED = "face_blurred"
    # caption
    NO_CAPTION = "no_caption"
    CAPTION_BOILERPLATE = "caption_boilerplate"
    CAPTION_TOO_SHORT = "caption_too_short"
    CAPTION_LANGUAGE = "caption_language"
    NO_PERSON_MENTIONED = "no_person_mentioned"
    CLIP_SIMILARITY = "clip_similarity"
    # among rows
    DUPLICATE_IMAGE = "duplicate_image"
    NEAR_DUPLICATE_IMAGE = "near_duplicate_image"
    HOST_CAP = "host_cap"
    IDENTITY_CAP = "identity_cap"
    CAPTION_CAP = "caption_cap"


# What ends a row for the moment only: it is tried again on a later run, and undoes nothing that was found before.
# Everything else is an answer: it stands until a newer one.
PASSING: frozenset[Reason] = frozenset(
    {
        Reason.ROBOTS_UNREACHABLE,
        Reason.DNS,
        Reason.CONNECT,
        Reason.TIMEOUT,
        Reason.HTTP_SERVER_ERROR,
        Reason.RATE_LIMITED,
        Reason.BROKEN_TRANSFER,
        Reason.INTERNAL_ERROR,
    }
)


class Split(StrEnum):
    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class PromotionAction(StrEnum):
    """What was decided about a model."""

    PROMOTE = "promote"
    KEEP = "keep"  # the champion stays: the challenger is not better
    ROLLBACK = "rollback"  # back to the champion before
    RETIRE = "retire"  # its folder is gone: the alias ends


def content_id(*parts: str) -> str:
    """32 hex digits of BLAKE2b over the UTF-8 parts, separated by NUL (which no URL holds)."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).hexdigest()


def row_id(page_url: str, image_url: str) -> str:
    """Identity of a pair: a picture on a page. Its captions are children, so better captions rename nothing."""
    return content_id(page_url, image_url)


def url_id(image_url: str) -> str:
    """Identity of an image address: the unit of consent and download, shared by all pages that show it."""
    return content_id(image_url)


def keyed_id(key: bytes, kind: str, text: str) -> str:
    """32 hex digits of HMAC-SHA256: says nothing about `text` to who does not hold `key`."""
    message = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
    return hmac.digest(key, message, "sha256").hex()[: 2 * _ID_BYTES]


def host_names(authority: str) -> tuple[str, ...]:
    """What a person may call the host of `scheme://name[:port]`: that itself, `name[:port]`, and `name`."""
    rest = authority.partition("://")[2] or authority
    name = rest.rpartition(":")[0] if rest.rpartition(":")[2].isdigit() and not rest.endswith("]") else rest
    return tuple(dict.fromkeys((authority, rest, name)))


def without_addresses(text: str, goes: Callable[[str], bool], by: str) -> str:
    """`text` with `by` in place of each address that `goes`; the same object where there is none."""
    if "://" not in text:
        return text
    pieces: list[str] = []
    done = start = 0
    while found := _ADDRESS.search(text, start):
        if length := _gone_length(found[0], goes):
            pieces += [text[done : found.start()], by]
            done = start = found.start() + length
        else:
            start = found.start() + 1  # addresses may hold others
    return "".join([*pieces, text[done:]]) if pieces else text


def _gone_length(found: str, goes: Callable[[str], bool]) -> int:
    """How much of what looks like an address is one that `goes` (text often runs on behind it); 0 if none."""
    ends = (mark.start() for mark in itertools.islice(_MAY_END.finditer(found), _MAX_ENDS))
    for end in (*ends, len(found)):
        while end:
            if goes(found[:end]):
                return end
            if found[end - 1].isalnum():
                break
            end -= 1
    return 0


def masked_look(key: bytes, nonce: str, phash: str) -> str:
    """A perceptual hash (16 hex digits) XORed with a pad of `key` and `nonce`; done twice it is the hash again."""
    pad = int(keyed_id(key, "look", nonce)[:16], 16)
    return f"{int(phash, 16) ^ pad:016x}"


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

# robots.txt and /.well-known/tdmrep.json per scheme://authority, valid for 24 hours.
HOSTS = _schema(
    ("host", _S),
    ("robots_status", _I32),
    ("robots_txt", _S),
    ("tdmrep_status", _I32),
    ("tdmrep_json", _S),
    ("checked_at", _TIME),
)

# One row per page that was read: what a re-crawl needs to ask for it conditionally, and to tell that a pair is gone.
PAGES = _schema(
    ("page_url", _S),
    ("source", _S),
    ("http_status", _I32),  # 304: unchanged since the crawl that read it
    ("etag", _S, True),
    ("last_modified", _S, True),
    ("body_sha256", _S, True),
    ("visited_at", _TIME),
)

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
    ("attempts", _I32),  # over all runs
    ("fetched_at", _TIME),
    ("final_url", _S, True),  # where redirects led
    ("etag", _S, True),
    ("last_modified", _S, True),
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
    ("occlusion", _F32, True),  # hint, 0..1; null where the face is too small to tell
    ("padded_share", _F32, True),  # of the aligned 256 px crop, what lies outside; null in rows of older formats
    # Of the largest face, to tell copies of one photograph; null for other faces, small ones and older formats.
    ("face_phash", _S, True),  # 16 hex digits
    ("face_thumb", pa.binary(), True),  # 16 x 16 grey values, row by row
    ("flatness", _F32, True),  # share of flat colour in the aligned face, 0..1; null in rows of older formats
)

# Biometric data, made only when asked for: files of their own that expire, not a table of the lake, never in shards.
EMBEDDINGS = _schema(
    ("image_id", _S),
    ("face_index", _I32),
    ("embedding", pa.list_(_F32)),  # unit length; its width is the model's
    ("model", _S),  # name and sha256 prefix
    ("expires_at", _TIME),
)

# How well a caption fits the aligned face of a picture (its largest), made only when asked for. One row per picture and
# text: pages that show both share it.
SIMILARITIES = _schema(
    ("image_id", _S),
    ("caption_id", _S),  # of the cleaned text, see captions.caption_id_sql
    ("model", _S),  # name, sha256 prefix of the weights, hash of the configuration
    ("similarity", _F32),  # cosine, -1..1
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
    ("image_host", _S, True),  # of the pair, so that a question by host is a scan of one table
    ("clip_similarity", _F32, True),  # of face and caption; null where nobody has measured it
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
    ("clip_similarity", _F32, True),
)

# The ledger of what was read: one row per unit (a file, a site) of a crawl that was published.
SOURCES = _schema(
    ("crawl", _S),  # path below the root
    ("source", _S),
    ("unit", _S),  # address of the file, or the site
    ("fingerprint", _S),  # of the file's state; another one means that it is read again
    ("pairs", _I64),
    ("warning", _S, True),  # where the file was damaged
    ("release", _I64),  # that first saw it
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

# Trained models; `path` lies below the root, `shards_sha256` is the hash of the index.json that was trained on. `alias`
# is "champion" for one of them at most, "challenger" for the last one that was measured against it; `parent` the model
# that this one went on from.
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
    ("parent", _S, True),
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

# Every decision about who is the champion, in order of `number`: who decided, when, why, by which figures.
PROMOTIONS = _schema(
    ("number", _I64),
    ("decided_at", _TIME),
    ("action", _S),  # a PromotionAction
    ("model", _S),  # whom it is about
    ("champion", _S, True),  # after it
    ("previous", _S, True),  # before it
    ("decided_by", _S),
    ("why", _S),
    ("figures", _S, True),  # JSON
    ("run_id", _S),
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

# One row per takedown: the audit. Nothing of what was removed, and no address. `rows`, `shards`, `gaps` and `models`
# are JSON: rows removed by table; files rewritten by release; how many samples each shard lacks, by release and shard
# size (so that those which stay keep their shard); names of the models that were trained or measured on it.
TAKEDOWNS = _schema(
    ("takedown_id", _S),
    ("at", _TIME),
    ("kind", _S),
    ("rows", _S),
    ("raw_pictures", _I64),  # copies overwritten in raw shards and stored pictures
    ("shards", _S),
    ("gaps", _S),
    ("models", _S),
    ("run_id", _S),
)

# What must not come back, as keyed hashes (keyed_id; the key is a file beside the catalogue). Kinds: address, host,
# picture (sha256), sample (row_id, under the key of the shards' readers); and look and face, perceptual hashes of a
# whole picture and of its largest face, XORed with a pad that the key gives: finding near pictures needs the hash
# itself. `bits`: how near counts.
TOMBSTONES = _schema(("takedown_id", _S), ("kind", _S), ("hash", _S), ("bits", _I32, True))
