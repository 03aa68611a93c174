"""`python -m gptface_core SHARDS OUT`: training alone, for machines that have none of the rest of the project.

Several processes: `torchrun --nproc-per-node 2 -m gptface_core SHARDS OUT --preset base`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

from gptface_core.config import RunOptions
from gptface_core.errors import InputError, TrainingError
from gptface_core.optimise import Progress

TELL_EVERY_S = 10.0
logger = logging.getLogger("gptface_core")


def main(words: list[str] | None = None) -> int:
    """Exit code 0, 2 for what does not fit, 1 for a training that failed, 128 + signal for one that was stopped."""
    options = _parser().parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    from gptface_core.training import train

    try:
        run = RunOptions(
            options.device,
            options.precision,
            options.compile,
            options.checkpoint_every,
            options.checkpoint_minutes,
            options.spike_sigmas,
            options.peak_tflops,
            options.wandb,
        )
        summary = train(
            options.shards, options.out, options.preset, options.seed, _Teller(), options.stage, run, options.init_from
        )
    except (InputError, TrainingError) as error:
        logger.error("%s", " ".join(str(error).split()))
        return getattr(error, "exit_code", 2)
    logger.info("trained: %s", ", ".join(f"{name} {loss:.4f}" for name, loss in summary.losses.items()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gptface_core", description=__doc__)
    parser.add_argument("shards", help="folder of WebDataset shards with index.json")
    parser.add_argument("out", help="folder of the model")
    parser.add_argument("--preset", default="demo", help="demo, tiny, mini, small, base or a .json file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", default="all", help="all or tokenizer")
    parser.add_argument("--init-from", help="folder of a trained model of the same shape to go on from")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--precision", default="auto", help="auto, bf16 or fp32")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile (default: on CUDA)")
    parser.add_argument("--checkpoint-every", type=int, default=1000, help="steps")
    parser.add_argument("--checkpoint-minutes", type=float, default=10.0)
    parser.add_argument("--spike-sigmas", type=float, default=20.0, help="0: never stop at a leap of the loss")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device, for MFU")
    parser.add_argument("--wandb", action="store_true")
    return parser


class _Teller:
    """A line when a stage begins and ends, and every few seconds between."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, event: Progress) -> None:
        if event.step not in (1, event.steps) and time.monotonic() - self._said < TELL_EVERY_S:
            return
        self._said = time.monotonic()
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in event.losses.items())
        logger.info("%s %d of %d: %s, %s", event.stage, event.step, event.steps, losses, event.speed)


if __name__ == "__main__":
    sys.exit(main())
