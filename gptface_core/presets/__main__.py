"""`python -m gptface_core.presets`: write the config files of the presets anew."""

from __future__ import annotations

from gptface_core.presets import write_presets

if __name__ == "__main__":
    write_presets()
