"""Held-out faces that training has seen: the same bytes, or the same look. There should be none.

Curation keeps duplicates within one split; this looks at the shards as they are, whoever made them.
"""

from __future__ import annotations

from gptface_core.datasets.own import load_shards
from gptface_core.datasets.twins import fingerprints, leaks
from gptface_core.evaluation.context import Context
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.registry import Benchmark

_SHOWN = 12


def run(context: Context) -> list[Figure]:
    """Shares of the test faces; draws `leaks`, where there are some, each above the training face it looks like."""
    faces = load_shards(context.index.splits["test"][0].path.parent)
    train, test = (fingerprints(faces.part(split)) for split in ("train", "test"))
    known = set(train.sha256)
    found = leaks(train, test)
    if found:
        items = {f"{faces.name}/{item.id}": item for item in faces.items}
        pairs = list(found.items())[:_SHOWN]
        side = context.index.crop_px
        context.draw("leaks", [[faces.picture(items[pair[n]], side) for pair in pairs] for n in (0, 1)])
    else:
        context.picture("leaks").unlink(missing_ok=True)
    by_bytes = [digest in known for digest in test.sha256]
    by_look = [name in found for name in test.ids]
    return [
        context.share("leaks", "same_picture_in_training", by_bytes, baseline=0.0),
        context.share("leaks", "look_alike_in_training", by_look, baseline=0.0),
    ]


BENCHMARK = Benchmark("leaks", ("full",), run)
