"""Parameters of the flows beyond the everyday ones: what a caller may set, checked before anything starts.

Field for field the configs of `flows.steps.config` (a test compares names and defaults); pydantic models, because
Prefect draws its form and its checks from them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from flows.steps.config import Metric, Precision, RunnerName

Minutes = Annotated[float, Field(ge=0)]
SAMPLE_SOURCE = "sample:600"

Rule = bool | int | float | str | list[float]


class BuildSettings(BaseModel):
    """How to crawl, download and cut; every value has a good default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pack: Annotated[str, Field(description="InsightFace model pack")] = "buffalo_sc"
    limit: Annotated[int, Field(ge=0, description="files to read at most, of those not read before; 0: all")] = 0
    cc_base: Annotated[str, Field(description="a mirror of Common Crawl's files; empty: its own address")] = ""
    part_urls: Annotated[int, Field(ge=1, description="picture addresses per part, the unit of work")] = 2_000
    workers: Annotated[int, Field(ge=0, description="worker processes; 0: one per core")] = 0
    allow_private: Annotated[bool, Field(description="allow addresses of private networks")] = False
    max_pages: Annotated[int, Field(ge=1)] = 100_000
    max_depth: Annotated[int, Field(ge=1)] = 10
    max_minutes: Annotated[float, Field(gt=0, description="time for finding pages")] = 60.0
    page_delay_s: Annotated[float, Field(ge=0, description="pause between two pages of a host")] = 0.25
    sitemaps: Annotated[bool, Field(description="read a site's sitemaps, too")] = True
    download_threads: Annotated[int, Field(ge=1)] = 32
    retries: Annotated[int, Field(ge=0, description="further tries of a download that broke")] = 2
    max_attempts: Annotated[int, Field(ge=1, description="tries of one picture over all runs")] = 6
    recheck_days: Annotated[float, Field(ge=0, description="ask again for older pictures; 0: never")] = 0.0
    host_concurrency: Annotated[int, Field(ge=1, description="pictures of one host at once")] = 8
    host_delay_s: Annotated[float, Field(ge=0, description="pause between two pictures of a host")] = 0.0
    refusal_limit: Annotated[int, Field(ge=1, description="refusals in a row that end the asking of a host")] = 3
    embed: Annotated[bool, Field(description="make face embeddings: biometric data, which expire")] = False
    embed_days: Annotated[int, Field(ge=1, description="days after which embeddings are deleted")] = 30
    embed_precision: Annotated[Precision, Field(description="of embeddings on a CPU")] = "float32"
    provider: Annotated[str, Field(description="onnxruntime's, for InsightFace")] = "CPUExecutionProvider"
    clip: Annotated[str, Field(description="open_clip's MODEL:PRETRAINED, compares captions with faces")] = ""
    clip_device: Annotated[str, Field(description="torch's, for clip")] = "cpu"
    catalog: Annotated[str, Field(description="postgres://user@host/database, for a new root; empty: SQLite")] = ""
    runner: Annotated[RunnerName, Field(description="local processes, or a Ray cluster")] = "local"
    ray_address: Annotated[str, Field(description="HOST:PORT of the Ray cluster, or auto")] = "auto"
    ray_gpus: Annotated[float, Field(ge=0, description="GPUs for a part of a step that uses them")] = 1.0
    rules: Annotated[dict[str, Rule], Field(description="curation rules by name, e.g. min_face_px")] = {}
    samples_per_shard: Annotated[int, Field(ge=1)] = 1_000


class ChallengeSettings(BaseModel):
    """How a night's challenger is trained and judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_champion: Annotated[bool, Field(description="go on from the champion's weights, else from nothing")] = True
    steps: Annotated[int, Field(ge=0, description="of a challenger that goes on; 0: the preset's main stage")] = 0
    learning_rate: Annotated[float, Field(ge=0, description="of a challenger that goes on; 0: the preset's")] = 0.0
    metric: Annotated[Metric, Field(description="the figure that decides; the probe needs labels")] = "itm_accuracy"
    labels: Annotated[str, Field(description="Parquet of attributes and opposed captions per row_id")] = ""


class RetentionSettings(BaseModel):
    """What stays when a night prunes; see docs/operations.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep_releases: Annotated[int, Field(ge=1, description="newest releases whose shards stay")] = 3
    keep_models: Annotated[int, Field(ge=0, description="newest models that stay beside the champions")] = 3
    raw: Annotated[bool, Field(description="remove raw shards that nothing needs")] = True
    checkpoints: Annotated[bool, Field(description="remove checkpoints and tokens of finished trainings")] = True
    lake_days: Annotated[int, Field(ge=0, description="days for which the lake's own snapshots stay")] = 7
