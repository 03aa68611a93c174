"""What the small web holds: picture i and page p follow from (seed, number of pictures) alone, nothing is stored.

Pictures come in blocks of 50, each with the same mixture (`_MIXTURE`) in an order of its own, so a site of 50 has
everything. Consecutive pictures lie on pages of 10, 11 or 12; section pages link to these, "/" links to the sections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from sample_web.draws import pick, seed_of, shuffled, uniforms
from sample_web.errors import InputError
from sample_web.render import Attributes, sample_attributes

MIN_IMAGES, MAX_IMAGES = 50, 1_000_000
BLOCK = 50
_PAGE_SIZES = (10, 11, 12)
_PER_CYCLE = sum(_PAGE_SIZES)

# Hosts of one web are four ports in a row: pages and pictures; pictures; a robots.txt that refuses all; pictures that
# are answered with `X-Robots-Tag: noai`.
HOSTS = 4
MAIN, SECOND, REFUSING, NOAI = range(HOSTS)

# kind -> how many of each 50. `face`, `exif`, `slow` are good single faces: 76 %.
_MIXTURE = {
    "face": 36,
    "exif": 1,  # stored turned, with an EXIF orientation
    "slow": 1,  # answered after a second; in three blocks of four an ordinary face
    "several": 2,
    "nonface": 2,
    "duplicate": 2,  # a face shown before: once the same bytes, once at another size
    "broken": 2,
    "refused": 1,
    "noai": 1,
    "boilerplate": 1,  # a good face without any text that says something
    "tiny": 1,
}
_SLOTS = tuple(kind for kind, count in _MIXTURE.items() for _ in range(count))
SINGLE_FACE_KINDS = frozenset({"face", "exif", "slow", "duplicate", "refused", "noai", "boilerplate", "tiny"})
BROKEN = ("404", "truncated", "html", "500", "empty")
_BROKEN_REASONS = {
    "404": "http_client_error",
    "500": "http_server_error",
    "truncated": "truncated_image",
    "html": "not_an_image",
    "empty": "empty_body",
}
_REASONS = {
    "several": "several_faces",
    "nonface": "no_face",
    "refused": "robots_txt",
    "noai": "image_opted_out",
    "boilerplate": "caption_boilerplate",
    "tiny": "too_small",
}
_SIZES_PX = (224, 224, 256, 256, 256, 288, 288, 320, 384, 448)
_TINY_PX = 48
_ORIENTATIONS = (6, 3, 8)


@dataclass(frozen=True)
class Site:
    """One small web. `untrue` is the share of single faces whose caption is untrue or beside the point."""

    images: int
    seed: int = 0
    untrue: float = 0.25

    def __post_init__(self) -> None:
        if not MIN_IMAGES <= self.images <= MAX_IMAGES:
            raise InputError(f"images {self.images}: choose {MIN_IMAGES} to {MAX_IMAGES}")
        if not 0.0 <= self.untrue <= 1.0:
            raise InputError(f"untrue share {self.untrue}: choose 0 to 1")

    @property
    def pages(self) -> int:
        """Number of pages that show pictures."""
        return self.page_of(self.images - 1) + 1

    @property
    def sections(self) -> int:
        """Number of section pages; "/" and each section have about as many links."""
        return math.ceil(math.sqrt(self.pages))

    def section_pages(self, section: int) -> range:
        """The pages to which a section links."""
        size = math.ceil(self.pages / self.sections)
        return range(section * size, min((section + 1) * size, self.pages))

    def page_of(self, index: int) -> int:
        """The page on which picture `index` is."""
        cycle, place = divmod(index, _PER_CYCLE)
        return 3 * cycle + (place >= _PAGE_SIZES[0]) + (place >= _PAGE_SIZES[0] + _PAGE_SIZES[1])

    def page_pictures(self, page: int) -> range:
        """The pictures on a page."""
        cycle, place = divmod(page, len(_PAGE_SIZES))
        first = cycle * _PER_CYCLE + sum(_PAGE_SIZES[:place])
        return range(first, min(first + _PAGE_SIZES[place], self.images))

    def picture(self, index: int) -> PictureSpec:
        """Everything about picture `index`."""
        return picture_spec(self.seed, index)


@dataclass(frozen=True)
class PictureSpec:
    """What is served as one picture. `subject` is the index of the face it shows; for a duplicate another's."""

    index: int
    kind: str
    variant: str  # which way of being broken or duplicate; else empty
    host: int
    extension: str
    size_px: int  # of the rendered picture; what is served may be smaller (see `served_px`)
    served_px: int
    faces: int
    subject: int
    attributes: Attributes | None  # of the single face
    face_seed: int
    orientation: int  # EXIF: 1, 3, 6 or 8

    @property
    def path(self) -> str:
        return f"/img/{self.index}.{self.extension}"

    @property
    def expected_reason(self) -> str | None:
        """Why a build with a perfect detector drops the row (a value of `Reason`), or None where it keeps it.

        Of a duplicate and its original one is kept, whichever comes first there.
        """
        if self.kind == "broken":
            return _BROKEN_REASONS[self.variant]
        if self.kind == "duplicate":
            return "duplicate_image" if self.variant == "same" else "near_duplicate_image"
        return _REASONS.get(self.kind)


@lru_cache(maxsize=256)
def _block_kinds(seed: int, block: int) -> tuple[str, ...]:
    kinds = shuffled(_SLOTS, "kinds", seed, block)
    return tuple("face" if kind == "slow" and block % 4 else kind for kind in kinds)


def _rank(kinds: tuple[str, ...], place: int) -> int:
    """How many of the same kind stand before this place of the block."""
    return kinds[:place].count(kinds[place])


@lru_cache(maxsize=4096)
def picture_spec(seed: int, index: int) -> PictureSpec:
    """Everything about picture `index` of the webs of this seed, of whatever size they are."""
    block, place = divmod(index, BLOCK)
    kinds = _block_kinds(seed, block)
    kind, rank = kinds[place], _rank(kinds, place)
    variant, subject = "", index
    if kind == "broken":
        variant = BROKEN[(2 * block + rank) % len(BROKEN)]
    elif kind == "duplicate":
        variant = ("same", "resized")[rank]
        subject = _original(seed, block, rank)
    shown = picture_spec(seed, subject) if subject != index else None
    u = uniforms("picture", seed, subject, count=4)
    extension = "jpg"
    if shown is not None:
        extension = shown.extension
    elif kind == "face":
        extension = "png" if u[0] < 0.03 else "webp" if u[0] < 0.07 else "jpg"
    size = pick(_SIZES_PX, u[1])
    served = _TINY_PX if kind == "tiny" else round(size * 0.8) if variant == "resized" else size
    host = {"refused": REFUSING, "noai": NOAI}.get(kind, SECOND if index % 3 == 1 else MAIN)
    return PictureSpec(
        index=index,
        kind=kind,
        variant=variant,
        host=host,
        extension=extension,
        size_px=size,
        served_px=served,
        faces=_faces(kind, variant, u[2]),
        subject=subject,
        attributes=sample_attributes(subject, seed) if kind in SINGLE_FACE_KINDS else None,
        face_seed=seed_of("face", seed, subject),
        orientation=_ORIENTATIONS[block % 3] if kind == "exif" else 1,
    )


def _original(seed: int, block: int, rank: int) -> int:
    """The face that a duplicate shows again: one of the block before, which is always complete."""
    source = max(block - 1, 0)
    faces = [place for place, kind in enumerate(_block_kinds(seed, source)) if kind == "face"]
    return source * BLOCK + faces[rank]


def _faces(kind: str, variant: str, u: float) -> int:
    """Faces in what is served; a truncated picture has one by rights, but it cannot be decoded."""
    if kind in ("nonface", "broken"):
        return 0
    return 2 + int(u * 2) if kind == "several" else 1
