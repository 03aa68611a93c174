"""Which text stands where beside a picture, and whether it is true."""

from __future__ import annotations

from dataclasses import dataclass

from sample_web import captions
from sample_web.draws import uniforms
from sample_web.site import PictureSpec, Site

PLACES = ("alt", "alt_and_figcaption", "figcaption", "card", "boilerplate")
TRUE, CONTRADICTING, IRRELEVANT = "true", "contradicting", "irrelevant"


@dataclass(frozen=True)
class PictureText:
    """The texts of one picture on its page; `caption` is what a reader would take as its caption."""

    caption: str
    second: str  # another wording of the same claim, where there are two texts; else empty
    place: str  # one of PLACES
    claim: str | None  # true, contradicting or irrelevant; None where there is no single face
    true_caption: str | None
    contradicting_caption: str | None


def picture_text(site: Site, spec: PictureSpec) -> PictureText:
    """The texts of a picture of this web."""
    key = (site.seed, spec.index)
    if spec.attributes is None:
        words = captions.of_several_faces(*key) if spec.kind == "several" else captions.of_no_face(*key)
        return PictureText(words, "", "alt", None, None, None)
    wording = captions.sample_wording(spec.attributes, *key)
    truth = captions.true_claim(spec.attributes, wording)
    opposite = captions.contradiction(truth, *key)
    u = uniforms("text", *key, count=2)
    claim = TRUE if u[0] >= site.untrue else CONTRADICTING if u[0] < site.untrue / 2 else IRRELEVANT
    said = opposite if claim == CONTRADICTING else truth
    place, second = _place(u[1]), ""
    text = captions.irrelevant(*key) if claim == IRRELEVANT else captions.write(said, wording)
    if spec.kind == "boilerplate":
        text, place, claim = captions.boilerplate(*key), "boilerplate", IRRELEVANT
    elif place == "alt_and_figcaption":
        other = captions.reworded(wording, *key)
        second = captions.irrelevant("second", *key) if claim == IRRELEVANT else captions.write(said, other)
    return PictureText(
        caption=text,
        second=second,
        place=place,
        claim=claim,
        true_caption=captions.write(truth, wording),
        contradicting_caption=captions.write(opposite, wording),
    )


def _place(u: float) -> str:
    """Mostly the alt text; now and then a caption below or the text of a card, with an alt text that says nothing."""
    return "alt" if u < 0.55 else "alt_and_figcaption" if u < 0.7 else "figcaption" if u < 0.85 else "card"
