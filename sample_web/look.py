"""How one drawn person looks beyond the attributes: shapes, colours, clothes, hair style, light, place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sample_web.draw import Colour

# Six skin tones, light to dark. The darkest is lit as a photographer would: detectors need the relief, not the tone.
_SKIN: tuple[Colour, ...] = (
    (238, 200, 174),
    (229, 184, 151),
    (212, 164, 128),
    (190, 137, 101),
    (168, 114, 83),
    (146, 96, 70),
)
_HAIR: dict[str, Colour] = {
    "black": (28, 25, 30),
    "brown": (98, 58, 30),
    "blond": (232, 196, 108),
    "red": (190, 72, 24),
    "grey": (160, 162, 170),
}
_EYES: tuple[Colour, ...] = ((70, 45, 28), (52, 78, 110), (62, 88, 60), (48, 36, 30), (88, 62, 32))
_FRAMES: tuple[Colour, ...] = ((18, 18, 22), (26, 28, 62), (70, 20, 26), (58, 36, 16), (16, 52, 46))
_CLOTHES: tuple[Colour, ...] = (
    (38, 60, 110),
    (150, 44, 52),
    (52, 100, 72),
    (232, 232, 226),
    (54, 54, 60),
    (212, 158, 60),
)
HAIR_STYLES = ("short", "side", "fringe", "long", "curly", "bun", "receding")


@dataclass(frozen=True)
class Look:
    """Everything about a picture of a face that no caption names. Lengths are in face units unless said otherwise."""

    x: float  # centre of the head, share of the picture's side
    y: float
    scale: float  # half-width of the head, share of the picture's side
    skin: Colour
    hair: Colour
    beard: Colour
    brow: Colour
    iris: Colour
    lips: Colour
    frame: Colour
    clothes: Colour
    mask: Colour
    hair_style: str
    jaw: float  # how square: 2 is an oval
    cheek: float  # half-width of the face below the eyes
    eye_x: float
    eye_y: float
    eye_size: float
    brow_lift: float
    brow_tilt: float
    nose_width: float
    nose_length: float
    mouth_y: float
    mouth_width: float
    gaze: float
    frame_shape: float  # power of the superellipse: 2 round, 5 nearly a rectangle
    frame_width: float
    neckline: int
    light_x: float  # where the light on the head comes from
    light_y: float
    skin_light: float  # brightness of the skin where no light falls on it
    relief: float  # strength of the shading of the face: darker skin gets more, to be seen as well
    side_light: float
    light_angle: float
    exposure: float
    blur_px: float  # at 256 px
    noise: float  # grey levels


def _shift(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """The colour, a little lighter or darker and a little off in hue."""
    bright = 1 + rng.uniform(-spread, spread)
    r, g, b = (min(max(c * bright * (1 + rng.uniform(-spread, spread) * 0.35), 0.0), 255.0) for c in colour)
    return (r, g, b)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b in a."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def scaled(colour: Colour, factor: float) -> Colour:
    """The colour, darker (factor below 1) or lighter."""
    return (min(colour[0] * factor, 255.0), min(colour[1] * factor, 255.0), min(colour[2] * factor, 255.0))


def sample_look(rng: np.random.Generator, hair_colour: str, skin_tone: int) -> Look:
    """A look drawn from `rng`; the two attributes that are colours decide hair, brows, beard and skin."""
    skin = _shift(rng, _SKIN[skin_tone], 0.05)
    hair = _shift(rng, _HAIR[hair_colour], 0.09)
    u = rng.uniform(-1, 1, 32)
    return Look(
        x=0.5 + 0.07 * u[0],
        y=0.52 + 0.04 * u[1],
        scale=0.235 + 0.04 * u[2],
        skin=skin,
        hair=hair,
        beard=mix(scaled(hair, 0.42), (24.0, 18.0, 16.0), 0.45),
        brow=mix(scaled(hair, 0.45), (30.0, 22.0, 18.0), 0.5),
        iris=_EYES[int(rng.integers(len(_EYES)))],
        lips=mix(skin, (170.0, 40.0, 50.0), 0.55 + 0.15 * u[3]),
        frame=_FRAMES[int(rng.integers(len(_FRAMES)))],
        clothes=_shift(rng, _CLOTHES[int(rng.integers(len(_CLOTHES)))], 0.08),
        mask=((150.0, 200.0, 225.0), (235.0, 238.0, 240.0), (45.0, 50.0, 62.0))[int(rng.integers(3))],
        hair_style=HAIR_STYLES[int(rng.integers(len(HAIR_STYLES)))],
        jaw=2.25 + 0.25 * u[4],
        cheek=0.97 + 0.05 * u[5],
        eye_x=0.41 + 0.03 * u[6],
        eye_y=-0.08 + 0.04 * u[7],
        eye_size=0.175 + 0.02 * u[8],
        brow_lift=0.30 + 0.04 * u[9],
        brow_tilt=0.03 * u[10] - 0.03,
        nose_width=0.20 + 0.04 * u[11],
        nose_length=0.50 + 0.05 * u[12],
        mouth_y=0.76 + 0.03 * u[13],
        mouth_width=0.46 + 0.04 * u[14],
        gaze=0.25 * u[15],
        frame_shape=3.6 + 1.6 * u[16],
        frame_width=0.085 + 0.012 * u[17],
        neckline=int(rng.integers(3)),
        light_x=0.45 * u[18],
        light_y=-0.35 + 0.15 * u[19],
        skin_light=0.72 + 0.025 * skin_tone,
        relief=1.0 + 0.12 * skin_tone,
        side_light=0.05 * (u[20] + 1),
        light_angle=3.1416 * u[21],
        exposure=1.0 + 0.05 * u[22],
        blur_px=0.75 + 0.45 * u[23],
        noise=4.5 + 3.5 * u[24],
    )
