"""Captions made from labels, names and tables, for corpora from labelled sets.

Two styles. "labels" says what is known: attribute words, gender, age, expression, names. "neutral" holds no word of any
class or attribute: names, tables, "a photo of a person". Which template and which words a picture gets is drawn from
its own id, so a caption never depends on its neighbours.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence

from gptface_core.datasets.faceset import EXPRESSION, FaceItem
from gptface_core.errors import InputError

STYLES = ("labels", "neutral")
SAY_SHARE = 0.75  # of the known attributes that a caption names
# Attribute -> words where it holds, words where it does not. Adjectives stand before the noun, the others after "with".
ADJECTIVES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "Smiling": (("smiling",), ("serious", "frowning")),
    "Senior": (("old", "elderly"), ("young",)),
}
FEATURES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "Eyeglasses": (("eyeglasses", "glasses"), ("no eyeglasses",)),
    "Sunglasses": (("sunglasses", "dark glasses"), ()),
    "Mouth Wide Open": (("an open mouth",), ("a closed mouth",)),
    "Blond Hair": (("blond hair",), ("black hair",)),
    "No Beard": (("no beard",), ("a beard",)),
}
EXPRESSIONS: Mapping[str, Sequence[str]] = {
    "angry": ("angry", "furious"),
    "disgust": ("disgusted", "revolted"),
    "fear": ("afraid", "scared"),
    "happy": ("happy", "smiling"),
    "neutral": ("calm", "neutral"),
    "sad": ("sad", "unhappy"),
    "surprise": ("surprised", "astonished"),
}
NOUNS = {"male": "man", "female": "woman"}
AGES = ("young", "middle-aged", "old")  # as the congress table has them
_FACE_FRAMES = (
    "a {expression} person",
    "a {expression} face",
    "photo of a person who looks {expression}",
    "portrait: {expression}",
    "someone {expression}",
    "the face of a {expression} person",
)
_LOOK_FRAMES = ("{name}, {look}", "{look}", "photo of {look}", "portrait of {look}", "{look}: {name}", "{name}")
_OFFICE = {"rep": "Representative", "sen": "Senator"}
_TABLE_FRAMES = (
    "{office} {name}, {party}, {state}",
    "{name} ({party}, {state})",
    "{office} {name} of {state}",
    "{name}, born {born}",
    "official photo of {office} {name}",
)
_NAME_FRAMES = ("{name}", "a photo of {name}", "{name} in a photo", "news picture of {name}", "this is {name}")
_NOBODY_FRAMES = (
    "a photo of a person",
    "a person",
    "a face",
    "photo of a face",
    "portrait of a person",
    "picture of someone",
    "someone in a picture",
    "a portrait",
)
_DRAWN_FRAMES = ("a drawing of a person", "a drawn face", "drawn portrait", "picture of a drawn person")
# Words that tell a class or an attribute, beyond those above: none of them is in a neutral caption.
_TELLING = (
    "male female men women boy girl lady gentleman he she his her him mr mrs ms miss sir dame king queen "
    "prince princess actor actress father mother son daughter brother sister aged age older younger elder "
    "senior junior youth child baby beard bearded moustache mustache goatee shaven shaved stubble shadow "
    "glasses eyeglasses sunglasses spectacles shades goggles bald hair haired blond blonde brunette black "
    "brown gray grey red white smile smiling smiles laugh laughing grin frown frowning mouth lips teeth open "
    "closed wide anger angry disgust fear fearful joy joyful happy happiness neutral sad sadness surprise "
    "surprised hat cap lipstick necktie"
)


def make_caption(item: FaceItem, style: str, key: str) -> str:
    """A true caption; `key` decides the wording. Raises InputError for a style that does not exist."""
    if style not in STYLES:
        raise InputError(f"no captions {style!r}: choose {' or '.join(STYLES)}")
    draw = random.Random(hashlib.blake2b(f"{style}\0{key}".encode(), digest_size=8).digest())
    return _neutral(item, draw) if style == "neutral" else _told(item, draw)


def drawn_caption(key: str) -> str:
    """A neutral caption for a drawn face."""
    return random.Random(f"drawn\0{key}").choice(_DRAWN_FRAMES)


def telling_words(caption: str) -> list[str]:
    """The words of a caption that name a class or an attribute."""
    return [word for word in re.findall(r"[\w-]+", caption.lower()) if word in TELLING_WORDS]


def _told(item: FaceItem, draw: random.Random) -> str:
    expression = item.labels.get(EXPRESSION)
    if isinstance(expression, str):
        words = EXPRESSIONS.get(expression, (expression,))
        return _with_article(draw.choice(_FACE_FRAMES).format(expression=draw.choice(words)))
    look, name = _look(item, draw), item.facts.get("name")
    if name is None:
        return draw.choice([frame for frame in _LOOK_FRAMES if "{name}" not in frame]).format(look=look)
    if "chamber" in item.facts and draw.random() < 0.5:
        return f"{_table(item, draw)}, {look}"
    return draw.choice(_LOOK_FRAMES).format(look=look, name=name)


def _look(item: FaceItem, draw: random.Random) -> str:
    """`an old smiling man with glasses and no beard`: what is known of the face, or part of it."""
    adjectives = [word for name, words in ADJECTIVES.items() if (word := _word(item, name, words, draw))]
    if "age" in item.facts and draw.random() < SAY_SHARE:
        adjectives.append(item.groups["age"])
    draw.shuffle(adjectives)
    features = [word for name, words in FEATURES.items() if (word := _word(item, name, words, draw))]
    draw.shuffle(features)
    noun = NOUNS.get(item.facts.get("gender", ""), "person") if draw.random() < SAY_SHARE else "person"
    listed = ", ".join([*features[:-2], " and ".join(features[-2:])]) if features else ""
    return _with_article(" ".join(["a", *adjectives, noun]) + (f" with {listed}" if listed else ""))


def _word(item: FaceItem, name: str, words: tuple[Sequence[str], Sequence[str]], draw: random.Random) -> str:
    """A word for the attribute, or nothing: where it is not known, has no word, or is left unsaid."""
    value = item.labels.get(name)
    if value is None or draw.random() >= SAY_SHARE:
        return ""
    choices = words[0 if value else 1]
    return draw.choice(choices) if choices else ""


def _neutral(item: FaceItem, draw: random.Random) -> str:
    name = item.facts.get("name")
    if name is None or telling_words(name):  # there are people called Young, Brown and Joy
        return draw.choice(_NOBODY_FRAMES)
    if "chamber" in item.facts:
        return _table(item, draw)
    return draw.choice(_NAME_FRAMES).format(name=name)


def _table(item: FaceItem, draw: random.Random) -> str:
    facts = {**item.facts, "office": _OFFICE.get(item.facts["chamber"], item.facts["chamber"])}
    frames = [f for f in _TABLE_FRAMES if all(field in facts for field in re.findall(r"{(\w+)}", f))]
    return draw.choice(frames).format(**facts)


def _with_article(text: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


TELLING_WORDS = frozenset(
    [*_TELLING.split(), *NOUNS.values(), *NOUNS, *AGES, *EXPRESSIONS]
    + [word for words in EXPRESSIONS.values() for word in words]
    + [
        part
        for table in (ADJECTIVES, FEATURES)
        for sides in table.values()
        for words in sides
        for word in words
        for part in word.split()
        if part not in ("a", "an", "no")
    ]
)
