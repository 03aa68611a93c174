"""One sentence per reason, for people who read the report: what happened, and which rule decides it."""

from __future__ import annotations

from warehouse.schema import Reason

SENTENCES: dict[str, str] = {
    Reason.KEPT: "Passed every rule: one good face, a caption, no duplicate.",
    Reason.ROBOTS_TXT: "robots.txt of the page's or the picture's host does not allow it; nothing was asked for.",
    Reason.ROBOTS_UNREACHABLE: "robots.txt could not be read, which counts as a refusal; nothing was asked for.",
    Reason.PAGE_OPTED_OUT: "The page says noai, noimageai, noimageindex or reserves its rights; nothing was asked for.",
    Reason.IMAGE_OPTED_OUT: "The picture's own answer carries an opt-out header; its bytes were not kept.",
    Reason.TDM_RESERVED: "The host's tdmrep.json reserves the rights to text and data mining; nothing was asked for.",
    Reason.HOST_OPTED_OUT: "Pictures of this host refused one after the other, so the rest was not asked for.",
    Reason.TAKEN_DOWN: "Taken down on request; its bytes were not kept, and the row goes before the next release.",
    Reason.BAD_ADDRESS: "Not an http or https address that can be asked for.",
    Reason.PRIVATE_ADDRESS: "The address leads into a private network.",
    Reason.DNS: "The host's name does not resolve.",
    Reason.CONNECT: "No connection to the host.",
    Reason.TLS: "The host's certificate or encryption is not valid.",
    Reason.TIMEOUT: "The host did not send the picture in time.",
    Reason.HTTP_CLIENT_ERROR: "The host answered with a 4xx status, such as 404 Not Found.",
    Reason.HTTP_SERVER_ERROR: "The host answered with a 5xx status, also on further tries.",
    Reason.RATE_LIMITED: "The host asked for patience (429 or Retry-After); a later run tries again.",
    Reason.TOO_MANY_REDIRECTS: "The address was passed on too many times.",
    Reason.TOO_LARGE: "The file is larger than the limit; the transfer was cut off.",
    Reason.BROKEN_TRANSFER: "The transfer broke off before its end.",
    Reason.EMPTY_BODY: "The host answered without any bytes.",
    Reason.INTERNAL_ERROR: "An error of ours; the row is kept here so that nothing vanishes silently.",
    Reason.NOT_AN_IMAGE: "The bytes are no picture that can be decoded.",
    Reason.TRUNCATED_IMAGE: "The picture's data ends too early.",
    Reason.TOO_MANY_PIXELS: "More pixels than the limit; it was not decoded.",
    Reason.TOO_SMALL: "The picture's shorter side is under the limit (min_side_px).",
    Reason.IMAGE_TYPE: "A drawing where photographs are wanted, or the other way round (image_type).",
    Reason.BLOCKED: "The host, the address or the picture is on a blocklist (blocked_hosts, blocklist).",
    Reason.NSFW: "Texts, the page's title, addresses or host speak of nudity or sex (allow_nsfw).",
    Reason.MINOR: "Texts, the page's title or addresses speak of a child or an age under 18 (allow_minors).",
    Reason.NO_FACE: "The detector found no face.",
    Reason.SEVERAL_FACES: "More than one face: it is unclear whom the caption is about.",
    Reason.FACE_SCORE: "The detector is not sure enough that this is a face (min_score).",
    Reason.FACE_PX: "The face's shorter side is under the limit (min_face_px).",
    Reason.FACE_POSE: "The face is turned away too far (max_yaw_deg, max_roll_deg).",
    Reason.FACE_BLURRED: "The face is not sharp enough (min_sharpness).",
    Reason.NO_CAPTION: "The page has no text for this picture.",
    Reason.CAPTION_BOILERPLATE: "The text is boilerplate, such as a file name or a button.",
    Reason.CAPTION_TOO_SHORT: "The text has too few words (min_caption_words).",
    Reason.CAPTION_LANGUAGE: "The text is in none of the wanted languages (languages).",
    Reason.NO_PERSON_MENTIONED: "The text mentions neither a person nor a face (need_person).",
    Reason.CLIP_SIMILARITY: "CLIP finds too little of the text in the face (min_clip_similarity; needs --clip).",
    Reason.DUPLICATE_IMAGE: "The same bytes stand on another page with a better caption, which was kept.",
    Reason.NEAR_DUPLICATE_IMAGE: "Nearly the same picture as a larger one that was kept.",
    Reason.HOST_CAP: "This host has given as many pictures as one may (max_per_host).",
    Reason.IDENTITY_CAP: "As many pictures of this person were kept as one may (max_per_identity; needs embeddings).",
    Reason.CAPTION_CAP: "Nearly the same caption was kept as often as one may (max_per_caption).",
}


def sentence(reason: str) -> str:
    """The sentence of a reason by its name in the tables; empty for a name of a later version."""
    return SENTENCES.get(reason, "")
