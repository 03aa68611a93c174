"""Parameters of the pipeline as frozen dataclasses: values have defaults or are asked for, unknown keys are errors."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from gptface_core.config import RunOptions
from gptface_core.evaluation_options import EvaluationOptions
from warehouse.parameters import RuleParameters, parameter_name

C = TypeVar("C")
DEFAULT_ROOT = "./gptface-data"
Detector = Literal["auto", "insightface", "cascade"]
Precision = Literal["float32", "bfloat16"]
RunnerName = Literal["local", "ray"]
# Figures that both models have face by face; the last one alone needs labels.
Metric = Literal["itm_accuracy", "mim_gain_nats", "inpaint_gain_db", "probe_balanced_accuracy"]
DETECTORS, PRECISIONS, RUNNERS, DECIDING = map(typing.get_args, (Detector, Precision, RunnerName, Metric))


class ConfigError(ValueError):
    """A parameter that does not fit: one clear line."""


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """One build of the corpus from one source.

    source: `site:URL`, `warc:FILES`, `wat:FILES`, `cc:CRAWL`, `list:FILES`, or `sample:N` (the built-in small web with
        N pictures).
    limit: files of an archive or list to read at most, of those not read before; 0 for all.
    cc_base: address below which the files of `cc:` lie; empty: Common Crawl's own.
    part_urls: picture addresses per part, the unit of work and of resumption.
    refresh: crawl the source anew although a finished crawl of it is at hand: what is new or changed, and what failed
        for a passing reason, up to `max_attempts` tries.
    recheck_days: pictures fetched longer ago than this are asked for again, conditionally; 0 for never.
    host_concurrency, host_delay_s: how many pictures of one host are asked for at once, and the pause between two.
    refusal_limit: so many pictures of a host refused in a row end the asking there.
    embed, embed_days: make face embeddings (biometric data, off by default), which are deleted after so many days.
    embed_precision: float32, or bfloat16 by OpenVINO: faster on a CPU that has it, and slightly other vectors.
    provider: onnxruntime's, for InsightFace; another one never takes its place.
    clip, clip_device: `MODEL:PRETRAINED` of open_clip, which then measures how well captions fit faces, on this device
        of torch; empty: nothing is measured.
    catalog: `postgres://user@host/database` for the catalogue of a new root; empty: as the root has it, else SQLite.
    runner: local, or ray: parts are worked on by all nodes of the cluster at `ray_address` (HOST:PORT, or auto), which
        must all see the root; `workers` 0 is then one per CPU of the cluster as it is at the start.
    ray_gpus: of a node, for one part of a step that works on GPUs (`provider`, `clip_device`); may be a fraction.
    """

    source: str
    root: str = DEFAULT_ROOT
    detector: str = "auto"
    pack: str = "buffalo_sc"
    limit: int = 0
    cc_base: str = ""
    part_urls: int = 2_000
    workers: int = 0
    refresh: bool = False
    allow_private: bool = False
    max_pages: int = 100_000
    max_depth: int = 10
    max_minutes: float = 60.0
    page_delay_s: float = 0.25
    sitemaps: bool = True
    download_threads: int = 32
    retries: int = 2
    max_attempts: int = 6
    recheck_days: float = 0.0
    host_concurrency: int = 8
    host_delay_s: float = 0.0
    refusal_limit: int = 3
    embed: bool = False
    embed_days: int = 30
    embed_precision: str = "float32"
    provider: str = "CPUExecutionProvider"
    clip: str = ""
    clip_device: str = "cpu"
    catalog: str = ""
    runner: str = "local"
    ray_address: str = "auto"
    ray_gpus: float = 1.0
    rules: RuleParameters = dataclasses.field(default_factory=RuleParameters)
    samples_per_shard: int = 1_000

    def __post_init__(self) -> None:
        _one_of("detector", self.detector, DETECTORS)
        _one_of("embed_precision", self.embed_precision, PRECISIONS)
        _one_of("runner", self.runner, RUNNERS)
        at_least_one = ("part_urls", "max_pages", "max_depth", "download_threads", "samples_per_shard")
        for name in (*at_least_one, "max_attempts", "host_concurrency", "refusal_limit", "embed_days"):
            _at_least(name, getattr(self, name), 1)
        for name in ("workers", "retries", "page_delay_s", "limit", "recheck_days", "host_delay_s", "ray_gpus"):
            _at_least(name, getattr(self, name), 0)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Training of one model on the shards of a release (0 = the newest).

    stage: all, or tokenizer to stop after the image tokenizer. options: how it is run (device, precision, checkpoints).
    init_from: a model (name below ROOT/models, or a path) of the preset's shape to go on from; empty: from nothing.
    steps, learning_rate: of the main stage, in place of the preset's; 0: as the preset says.
    processes: of this machine that train, started by torchrun; 1: this one; 0: one per CUDA device, else this one.
    wait_minutes: for how long to wait where another process writes the root; 0: that is an error.
    """

    root: str = DEFAULT_ROOT
    preset: str = "demo"
    name: str = ""
    release: int = 0
    seed: int = 0
    stage: str = "all"
    options: RunOptions = dataclasses.field(default_factory=RunOptions)
    init_from: str = ""
    steps: int = 0
    learning_rate: float = 0.0
    processes: int = 1
    wait_minutes: float = 0.0

    def __post_init__(self) -> None:
        for name in ("release", "steps", "learning_rate", "processes", "wait_minutes"):
            _at_least(name, getattr(self, name), 0)
        _one_of("stage", self.stage, ("all", "tokenizer"))
        if self.processes != 1 and self.stage != "all":
            raise ConfigError(f"processes={self.processes}: stage {self.stage} is for one process, or torchrun by hand")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Evaluation of a model (a name below ROOT/models, or a path; empty = the champion, else the newest) on a release's
    held-out faces.

    labels: Parquet with attribute labels and opposed captions per row_id; without it what needs them is left out.
    options: what is measured, and on how much (their `cache` is below the root).
    fresh: measure anew what an earlier run has measured under the same key (gptface_core.evaluation.kept).
    wait_minutes: for how long to wait where another process writes the root; 0: that is an error.
    """

    root: str = DEFAULT_ROOT
    model: str = ""
    release: int = 0
    labels: str = ""
    seed: int = 0
    options: EvaluationOptions = dataclasses.field(default_factory=EvaluationOptions)
    fresh: bool = False
    wait_minutes: float = 0.0

    def __post_init__(self) -> None:
        for name in ("release", "wait_minutes"):
            _at_least(name, getattr(self, name), 0)


@dataclasses.dataclass(frozen=True)
class RetentionConfig:
    """What `prune` leaves. Nothing that the champion, the one before it or the challenger needs ever goes.

    keep_releases: the newest releases whose shards stay; of others the manifest stays, from which they can be rebuilt.
    keep_models: the newest models that stay beside champion, previous champion and challenger.
    raw: remove raw shards of which no release kept and no current row needs a picture.
    checkpoints: remove checkpoints and tokens of finished trainings.
    lake_days: the lake's own (DuckLake's) snapshots of so many days stay; releases are not among these, and all stay.
    """

    keep_releases: int = 3
    keep_models: int = 3
    raw: bool = True
    checkpoints: bool = True
    lake_days: int = 7

    def __post_init__(self) -> None:
        _at_least("keep_releases", self.keep_releases, 1)
        for name in ("keep_models", "lake_days"):
            _at_least(name, getattr(self, name), 0)


@dataclasses.dataclass(frozen=True)
class NightConfig:
    """A night: a build, and where it brings enough that is new, a challenger to the champion.

    min_new_rows: kept rows that neither the champion nor any model decided about has seen; fewer train nothing.
    from_champion: the challenger goes on from the champion's weights; else it is trained from nothing.
    steps, learning_rate: of a challenger that goes on, in place of the preset's; 0: as the preset says.
    metric: the figure that decides (DECIDING). labels: as in EvaluateConfig.
    retention: what is pruned after it; None: nothing.
    """

    build: BuildConfig
    preset: str = "demo"
    seed: int = 0
    min_new_rows: int = 100
    from_champion: bool = True
    steps: int = 0
    learning_rate: float = 0.0
    metric: str = "itm_accuracy"
    labels: str = ""
    retention: RetentionConfig | None = None

    def __post_init__(self) -> None:
        _one_of("metric", self.metric, DECIDING)  # else found out after the training
        _at_least("min_new_rows", self.min_new_rows, 1)
        for name in ("steps", "learning_rate"):
            _at_least(name, getattr(self, name), 0)


def default_root() -> str:
    """GPTFACE_ROOT, else ./gptface-data."""
    return os.environ.get("GPTFACE_ROOT") or DEFAULT_ROOT


def chosen_root(root: str | None) -> str:
    """The folder of `root` (default: `default_root`), which for s3:// is its working folder on this machine."""
    from warehouse.store import find_root

    return str(find_root(root or default_root()))


def from_dict(cls: type[C], data: Mapping[str, Any]) -> C:
    """Make a config from plain data (JSON, flow parameters). Raises ConfigError for unknown keys and wrong types."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ConfigError(f"unknown parameter {unknown[0]!r}: choose from {', '.join(sorted(hints))}")
    return cls(**{name: _coerce(name, value, hints[name]) for name, value in data.items()})


def _coerce(name: str, value: Any, hint: Any) -> Any:
    if hint is RuleParameters and isinstance(value, Mapping):
        value = {parameter_name(rule): each for rule, each in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_dict(hint, value)
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, Path):
        return str(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ConfigError(f"{name}={value!r}: must be of type {hint.__name__}")
    return value


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"unknown {name} {value!r}: choose from {', '.join(allowed)}")


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise ConfigError(f"{name}={value}: must be at least {least}")
