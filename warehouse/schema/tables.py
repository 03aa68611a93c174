"""The tables of the corpus as Arrow schemas. Every writer casts to one of them and fails loudly."""

from __future__ import annotations

import pyarrow as pa


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
