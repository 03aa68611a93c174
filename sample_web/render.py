"""Drawn faces with known attributes: deterministic, a few milliseconds each, no photograph of anyone.

`render_face(sample_attributes(index, seed), seed)` is a picture of one face. What a caption may name (eyeglasses,
beard, hair colour, smile) is drawn boldly enough to be seen at 64 x 64 px; everything else (head shape, hair style,
light, background, position, clothes) varies with the seed and is told by no caption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from sample_web import features, hair
from sample_web.backgrounds import paint_background
from sample_web.draw import Pen, Picture, Pose
from sample_web.draws import pick, uniforms
from sample_web.errors import InputError
from sample_web.look import Look, sample_look

HAIR_COLOURS = ("black", "brown", "blond", "red", "grey")
AGES = ("young", "middle", "old")
SKIN_TONES = 6


@dataclass(frozen=True)
class Attributes:
    """What is known about a drawn face. Each is drawn independently of all others (`sample_attributes`)."""

    smiling: bool
    eyeglasses: bool
    beard: bool
    hair_colour: str  # one of HAIR_COLOURS
    skin_tone: int  # 0 (lightest) .. 5 (darkest)
    face_mask: bool
    age: str  # one of AGES: drawn as wrinkles
    yaw_deg: float  # turn of the head; positive: to the right of the picture
    roll_deg: float  # tilt of the head; positive: clockwise

    def __post_init__(self) -> None:
        if self.hair_colour not in HAIR_COLOURS:
            raise InputError(f"no hair colour '{self.hair_colour}': choose one of {', '.join(HAIR_COLOURS)}")
        if self.age not in AGES:
            raise InputError(f"no age '{self.age}': choose one of {', '.join(AGES)}")
        if not 0 <= self.skin_tone < SKIN_TONES:
            raise InputError(f"no skin tone {self.skin_tone}: choose 0 to {SKIN_TONES - 1}")

    @property
    def frontal(self) -> bool:
        """Near enough to the camera for a detector of frontal faces."""
        return abs(self.yaw_deg) <= 15 and abs(self.roll_deg) <= 12


def sample_attributes(index: int, seed: int) -> Attributes:
    """The attributes of face `index` of a web of this seed: all independent of one another.

    Half smile, half wear eyeglasses, half have a beard; hair colours, skin tones and ages are equally frequent; one in
    25 wears a face mask. Yaw and roll are bell-shaped, within 22 and 11 degrees.
    """
    u = uniforms("attributes", seed, index, count=13)
    return Attributes(
        smiling=u[0] < 0.5,
        eyeglasses=u[1] < 0.5,
        beard=u[2] < 0.5,
        hair_colour=pick(HAIR_COLOURS, u[3]),
        skin_tone=int(u[4] * SKIN_TONES),
        face_mask=u[5] < 0.04,
        age=pick(AGES, u[6]),
        yaw_deg=round((u[7] + u[8] + u[9] - 1.5) / 1.5 * 22, 2),
        roll_deg=round((u[10] + u[11] + u[12] - 1.5) / 1.5 * 11, 2),
    )


def render_face(attributes: Attributes, seed: int, size_px: int = 256) -> Picture:
    """One face as uint8 (size_px, size_px, 3) RGB; `seed` chooses everything that the attributes leave open.

    Raises InputError for a size outside 32..2048 px.
    """
    if not 32 <= size_px <= 2048:
        raise InputError(f"size {size_px} px: choose 32 to 2048")
    rng = np.random.default_rng([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, 0xFACE])
    look = sample_look(rng, attributes.hair_colour, attributes.skin_tone)
    canvas = paint_background(rng, size_px, size_px)
    pose = Pose(
        x_px=size_px * look.x,
        y_px=size_px * look.y,
        unit_px=size_px * look.scale,
        yaw=math.radians(attributes.yaw_deg),
        roll=math.radians(attributes.roll_deg),
    )
    _draw_person(Pen(canvas, pose), attributes, look)
    return _finish(canvas, look, rng)


def _draw_person(pen: Pen, attributes: Attributes, look: Look) -> None:
    hair.hair_behind(pen, look)
    features.body(pen, look)
    features.head(pen, look)
    features.shade_head(pen, look)
    features.age_lines(pen, look, attributes.age)
    if attributes.beard:
        hair.beard(pen, look)
    features.nose(pen, look)
    features.mouth(pen, look, attributes.smiling)
    features.eyes(pen, look, attributes.smiling)
    hair.hair_front(pen, look)
    features.brows(pen, look)
    if attributes.face_mask:
        features.face_mask(pen, look)
    if attributes.eyeglasses:
        features.eyeglasses(pen, look)
    pen.flush()


def _finish(canvas: Picture, look: Look, rng: np.random.Generator) -> Picture:
    """Light that falls from one side, a lens that is a little soft, and a sensor with a little noise."""
    height, width = canvas.shape[:2]
    xs, ys = np.linspace(-1, 1, 16, dtype=np.float32), np.linspace(-1, 1, 16, dtype=np.float32)
    light = 1 + look.side_light * (xs[None, :] * math.cos(look.light_angle) + ys[:, None] * math.sin(look.light_angle))
    gain = cv2.resize(np.clip(light * look.exposure * 128, 0, 255).astype(np.uint8), (width, height))
    canvas = cv2.multiply(canvas, cv2.cvtColor(gain, cv2.COLOR_GRAY2RGB), scale=1 / 128)
    if look.blur_px > 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), look.blur_px * width / 256)
    noise = cv2.cvtColor(rng.integers(0, 256, (height, width), dtype=np.uint8), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(canvas, 1.0, noise, look.noise / 128, -look.noise), dtype=np.uint8)
