"""Parameters of the rules: every threshold and list by name, checked when it is set."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from warehouse.errors import InputError

_MAX_DISTANCE = 16  # above, bands are so short that everything is compared with everything
_RANGES: dict[str, tuple[float, float]] = {
    "min_side_px": (1, 100_000),
    "min_score": (0.5, 1),  # no detector gives a face of less (gptface_core.faces.detector.DEFAULT_MIN_SCORE)
    "min_face_px": (1, 100_000),
    "max_yaw_deg": (0, 180),
    "max_roll_deg": (0, 180),
    "min_sharpness": (0, 1_000_000),
    "drawing_flatness": (0, 1),
    "min_caption_words": (1, 1000),
    "max_caption_chars": (8, 100_000),
    "min_clip_similarity": (-1, 1),
    "near_duplicate_bits": (0, _MAX_DISTANCE),
    "near_face_bits": (0, _MAX_DISTANCE),
    "min_face_likeness": (0, 1),
    "max_per_host": (0, 10**12),
    "max_per_identity": (0, 10**12),
    "same_person": (0.1, 1),
    "max_per_caption": (0, 10**12),
    "val_share": (0, 1),
    "test_share": (0, 1),
}


IMAGE_TYPES = ("any", "photo", "drawing")


@dataclass(frozen=True)
class RuleParameters:
    """Thresholds of the rules. Raises InputError for a value outside its range."""

    min_side_px: int = 64  # shorter side of the picture
    image_type: str = "any"  # photo or drawing, by the flatness of the face; an unknown one passes
    drawing_flatness: float = 0.35  # share of flat colour in the face from which on it counts as drawn
    allow_nsfw: bool = False
    allow_minors: bool = False  # pictures whose texts or addresses speak of a child
    blocked_hosts: tuple[str, ...] = ()  # "example.org" means its subdomains, too
    blocklist: str = ""  # a text file: a host, an address or a sha256 a line, "#" begins a comment
    one_face: bool = True  # exactly one; otherwise the largest of several is used
    min_score: float = 0.5  # of the detector, which gives no face of less
    min_face_px: int = 64  # shorter side of the face's box
    max_yaw_deg: float = 90.0  # estimated; an unknown pose passes
    max_roll_deg: float = 180.0
    min_sharpness: float = 0.0
    min_caption_words: int = 3
    max_caption_chars: int = 400  # longer captions are cut at a word
    languages: tuple[str, ...] = ()  # ISO 639-1 codes, such as en,de; none: any
    need_person: bool = False  # the caption must mention a person or a face
    min_clip_similarity: float = -1.0  # cosine of face and caption; an unknown one passes
    clip_model: str = ""  # whose similarities count (column `model`); empty: as in the release before
    replace_names: bool = False  # what looks like a personal name becomes "a person"
    near_duplicate_bits: int = 3  # Hamming distance of 64-bit perceptual hashes up to which pictures count as one
    near_face_bits: int = 6  # the same for hashes of the aligned face; such pictures are then compared once more
    min_face_likeness: float = 0.975  # correlation of the thumbnails of the faces from which on pictures count as one
    max_per_host: int = 0  # kept pictures of one host; 0: any number
    max_per_identity: int = 0  # kept pictures of one person, where embeddings are at hand; 0: any number
    same_person: float = 0.45  # mean cosine of embeddings from which two groups of pictures show one person
    max_per_caption: int = 0  # kept pictures with the same caption but for case, digits and punctuation; 0: any number
    val_share: float = 0.05
    test_share: float = 0.05

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), field.default)
        if self.val_share + self.test_share >= 1:
            raise InputError(f"val_share {self.val_share} and test_share {self.test_share} leave nothing to train on")
        if self.image_type not in IMAGE_TYPES:
            raise InputError(f"rule parameter image_type={self.image_type!r}: choose {', '.join(IMAGE_TYPES)}")
        for code in self.languages:
            if not (code.isascii() and code.isalpha() and code.islower() and len(code) in (2, 3)):
                raise InputError(f"rule parameter languages={code!r}: give codes of ISO 639-1, such as en,de")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> RuleParameters:
        """Parameters by name; an unknown name is an InputError that lists the known ones."""
        return cls(**{parameter_name(name): value for name, value in values.items()})  # type: ignore[arg-type]

    @classmethod
    def from_words(cls, words: Iterable[str]) -> RuleParameters:
        """Parameters from words `name=value`, as `--rule` gives them. Raises InputError."""
        values: dict[str, object] = {}
        for word in words:
            name, equals, text = word.partition("=")
            if not equals:
                raise InputError(f"rule {word!r} is not of the form name=value, such as min_face_px=96")
            found = parameter_name(name)
            values[found] = _from_text(found, text)
        return cls.from_mapping(values)

    @classmethod
    def from_release(cls, rules: str) -> RuleParameters:
        """Parameters from the JSON of a release, perhaps an older one: its decisions would be the same by them.

        A name that is not known any more is left out. Scores under the detector's own were allowed once, without any
        effect.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        values = {
            name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(rules).items() if name in known
        }
        if "min_score" in values:
            values["min_score"] = max(values["min_score"], _RANGES["min_score"][0])
        return cls.from_mapping(values)

    def changed(self, name: str, text: str) -> RuleParameters:
        """These with one parameter set from text. `face_px` will do for `min_face_px`. Raises InputError."""
        found = parameter_name(name)
        return RuleParameters.from_mapping({**dataclasses.asdict(self), found: _from_text(found, text)})

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def parameter_name(name: str) -> str:
    """The parameter that `name` stands for: itself, or without min_, max_ or allow_. Raises InputError."""
    known = [field.name for field in dataclasses.fields(RuleParameters)]
    found = next((full for full in (name, f"min_{name}", f"max_{name}", f"allow_{name}") if full in known), None)
    if found is None:
        raise InputError(f"no rule parameter {name!r}: choose from {', '.join(known)}")
    return found


def _from_text(name: str, text: str) -> object:
    """The value of a parameter, of its default's type."""
    default = getattr(RuleParameters, name)
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise InputError(f"rule parameter {name}={text!r}: choose true or false")
        return text.lower() == "true"
    if isinstance(default, tuple):
        return tuple(word for word in text.split(",") if word)
    if isinstance(default, str):
        return text
    try:
        return int(text) if isinstance(default, int) else float(text)
    except ValueError as error:
        raise InputError(f"rule parameter {name}={text!r}: give a number") from error


def _check(name: str, value: object, default: object) -> None:
    """Type and range of one parameter; a whole number will do for a share or an angle."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InputError(f"rule parameter {name}={value!r}: choose true or false")
    elif isinstance(default, (int, float)):
        whole = isinstance(default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise InputError(f"rule parameter {name}={value!r}: give {'a whole' if whole else 'a'} number")
        low, high = _RANGES[name]
        if not low <= value <= high:
            why = " (the detector gives no face of less)" if name == "min_score" and value < low else ""
            raise InputError(f"rule parameter {name}={value!r}: choose {low:g} to {high:g}{why}")
    elif isinstance(default, str):
        if not isinstance(value, str):
            raise InputError(f"rule parameter {name}={value!r}: give a text")
    elif not (isinstance(value, tuple) and all(isinstance(word, str) for word in value)):
        raise InputError(f"rule parameter {name}={value!r}: give words separated by commas")
