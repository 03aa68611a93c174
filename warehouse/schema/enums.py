"""The closed enums: every status, reason, split and decision is a member of one of them."""

from __future__ import annotations

from enum import StrEnum


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
