"""Each preset as a config file, to copy and change: `gptface train --preset my.json`.

The presets themselves are in `gptface_core.config`; `python -m gptface_core.presets` writes these files anew.
"""

from __future__ import annotations

import json
from pathlib import Path

from gptface_core.config import load_preset
from gptface_core.files import write_text

FOLDER = Path(__file__).parent
NAMES = ("demo", "tiny", "mini", "small", "base")


def write_presets(folder: Path = FOLDER) -> None:
    """NAME.json for each preset: every value, so that a reader sees what there is to change."""
    for name in NAMES:
        write_text(folder / f"{name}.json", json.dumps(load_preset(name).to_dict(), indent=1) + "\n")
