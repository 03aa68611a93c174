"""Which workers a build gets: those of this machine, or those of a Ray cluster."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from flows.steps.config import BuildConfig, ConfigError
from flows.steps.runner import Pool, WorkerPool
from flows.steps.sample import PREFIX


def open_pool(config: BuildConfig) -> tuple[BuildConfig, Pool]:
    """The config as its workers need it, and the workers, which the caller closes.

    Raises ConfigError where a Ray cluster is asked for and cannot do it.
    """
    if config.runner == "local":
        return config, WorkerPool(config.workers)
    from flows.steps.ray_pool import RayPool

    root = Path(config.root).resolve()
    pool = RayPool(config.ray_address, root, config.workers, gpu_steps(config))
    if pool.hosts > 1 and config.source.startswith(PREFIX):
        pool.close(kill=True)
        raise ConfigError(
            f"source {config.source!r}: this machine alone can reach it, and the Ray cluster has {pool.hosts}: "
            "build it with --runner local"
        )
    return dataclasses.replace(config, root=str(root), workers=pool.workers), pool


def gpu_steps(config: BuildConfig) -> dict[str, float]:
    """Share of a GPU that a shard takes, by the name of the step; of those that work on GPUs."""
    steps: tuple[str, ...] = ()
    if config.provider != "CPUExecutionProvider":
        steps += ("detect", "embed")
    if config.clip and config.clip_device != "cpu":
        steps += ("clip",)
    return dict.fromkeys(steps, config.ray_gpus) if config.ray_gpus else {}
