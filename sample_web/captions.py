"""Captions of drawn faces: a few templates, a small natural vocabulary; true, untrue or beside the point.

A `Claim` is what a caption says, apart from its wording: so one wording can be given the truth, or its opposite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sample_web.draws import pick, shuffled, uniforms
from sample_web.render import HAIR_COLOURS, Attributes

NAMEABLE = ("eyeglasses", "beard", "hair_colour", "smiling")
_HIDDEN_BY_MASK = ("beard", "smiling")
_AGE_WORDS = {"young": "young", "middle": "middle-aged", "old": "old"}
_FRAMES = (
    "A {adjectives} person with {list}.",
    "Portrait of a {adjectives} person with {list}",
    "Photo of a {adjectives} face with {list}",
    "One {adjectives} person: {list}",
    "{list}: a {adjectives} person",
    "Here is a {adjectives} person with {list}.",
)
_IRRELEVANT = (
    "Opening hours from Monday to Friday",
    "The old harbour in the evening",
    "A cup of coffee on a wooden table",
    "Our garden after the rain last week",
    "How to bake bread at home",
    "The train leaves at seven in the morning",
    "Second place in the chess tournament",
    "Three easy walks around the lake",
    "Tickets for the concert are sold out",
    "The new library is open to everyone",
    "Fresh apples from the market square",
    "Notes from the summer workshop",
)
BOILERPLATE = ("image", "photo", "picture", "IMG_{number}.jpg", "DSC_{number}", "portrait", "thumbnail")
_SEVERAL = (
    "Two friends at the summer workshop",
    "The team after the chess tournament",
    "Neighbours meeting in the garden",
    "A family at the lake",
)
_NO_FACE = (
    "Hills under a wide sky",
    "Coloured paper on a wall",
    "A pattern of stripes and dots",
    "Fields behind the old harbour",
    "Clouds over the lake in summer",
)


@dataclass(frozen=True)
class Claim:
    """What a caption says of a face; None is left unsaid."""

    eyeglasses: bool | None
    beard: bool | None
    hair_colour: str | None
    smiling: bool | None
    age: str | None

    def agrees(self, attributes: Attributes) -> bool:
        """Whether all that is said is so."""
        said = vars(self)
        return all(value is None or value == getattr(attributes, name) for name, value in said.items())


@dataclass(frozen=True)
class Wording:
    """Everything about a caption but its claim: which attributes it names, in which words and order."""

    named: tuple[str, ...]  # of NAMEABLE, 2 to 4; fewer for a masked face
    with_age: bool
    frame: str
    order: tuple[str, ...]
    short_glasses: bool
    full_beard: bool
    shaven: bool
    lower: bool


def sample_wording(attributes: Attributes, *key: int | str) -> Wording:
    """A wording that the key decides; it names nothing that a face mask hides."""
    u = uniforms("wording", *key, count=8)
    visible = [n for n in NAMEABLE if not (attributes.face_mask and n in _HIDDEN_BY_MASK)]
    count = 2 if u[0] < 0.15 else 3 if u[0] < 0.5 else 4
    return Wording(
        named=tuple(shuffled(visible, "named", *key)[:count]),
        with_age=u[1] < 0.3,
        frame=pick(_FRAMES, u[2]),
        order=tuple(shuffled(("hair_colour", "eyeglasses", "beard"), "order", *key)),
        short_glasses=u[3] < 0.35,
        full_beard=u[4] < 0.25,
        shaven=u[5] < 0.85,
        lower=u[6] < 0.15,
    )


def reworded(wording: Wording, *key: int | str) -> Wording:
    """The same attributes named in another frame and order."""
    return replace(
        wording,
        frame=pick(_FRAMES, uniforms("reworded", *key, count=1)[0]),
        order=tuple(shuffled(wording.order, "reworded", *key)),
        lower=False,
    )


def true_claim(attributes: Attributes, wording: Wording) -> Claim:
    """What the wording says of a face when it tells the truth."""
    named = wording.named
    return Claim(
        eyeglasses=attributes.eyeglasses if "eyeglasses" in named else None,
        beard=attributes.beard if "beard" in named else None,
        hair_colour=attributes.hair_colour if "hair_colour" in named else None,
        smiling=attributes.smiling if "smiling" in named else None,
        age=attributes.age if wording.with_age else None,
    )


def contradiction(claim: Claim, *key: int | str) -> Claim:
    """The claim with all it says of eyeglasses, beard, hair colour and smile turned into something else."""
    others = [c for c in HAIR_COLOURS if c != claim.hair_colour]
    (u,) = uniforms("contradiction", *key, count=1)
    return Claim(
        eyeglasses=None if claim.eyeglasses is None else not claim.eyeglasses,
        beard=None if claim.beard is None else not claim.beard,
        hair_colour=None if claim.hair_colour is None else pick(others, u),
        smiling=None if claim.smiling is None else not claim.smiling,
        age=claim.age,
    )


def write(claim: Claim, wording: Wording) -> str:
    """The caption that says `claim` in this wording."""
    adjectives = [_AGE_WORDS[claim.age]] if claim.age else []
    if claim.smiling is not None:
        adjectives.insert(0, "smiling" if claim.smiling else "serious")
    parts = {
        "hair_colour": f"{claim.hair_colour} hair" if claim.hair_colour else "",
        "eyeglasses": _glasses(claim, wording),
        "beard": _beard(claim, wording),
    }
    listed = [parts[name] for name in wording.order if parts[name]]
    text = wording.frame.format(adjectives=" ".join(adjectives), list=_join(listed))
    text = _tidy(text)
    return text.lower() if wording.lower else text[0].upper() + text[1:]


def _glasses(claim: Claim, wording: Wording) -> str:
    if claim.eyeglasses is None:
        return ""
    word = "glasses" if wording.short_glasses else "eyeglasses"
    return word if claim.eyeglasses else f"no {word}"


def _beard(claim: Claim, wording: Wording) -> str:
    if claim.beard is None:
        return ""
    if claim.beard:
        return "a full beard" if wording.full_beard else "a beard"
    return "a clean-shaven chin" if wording.shaven else "no beard"


def _join(items: list[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else "".join(items)


def _tidy(text: str) -> str:
    """Without the gaps that an empty slot leaves, and with the right article."""
    text = " ".join(text.split()).replace(" with:", ":").replace(" ,", ",").rstrip(", ")
    return text.replace("a old", "an old").replace("A old", "An old")


def irrelevant(*key: int | str) -> str:
    """A caption that says nothing about any face."""
    return pick(_IRRELEVANT, uniforms("irrelevant", *key, count=1)[0])


def boilerplate(*key: int | str) -> str:
    """An alt text as cameras and careless editors leave it."""
    u, v = uniforms("boilerplate", *key, count=2)
    return pick(BOILERPLATE, u).format(number=1000 + int(v * 9000))


def of_several_faces(*key: int | str) -> str:
    return pick(_SEVERAL, uniforms("several", *key, count=1)[0])


def of_no_face(*key: int | str) -> str:
    return pick(_NO_FACE, uniforms("no_face", *key, count=1)[0])
