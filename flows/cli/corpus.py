"""Commands of the corpus: build, funnel, report, shard."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from flows.cli.options import (
    DEFAULT_ROOT,
    AllowPrivate,
    At,
    DownloadThreads,
    HostConcurrency,
    HostDelay,
    Metrics,
    PartUrls,
    RefusalLimit,
    Release,
    Retries,
    Root,
    Workers,
)


class Format(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def build(
    source: Annotated[
        str,
        typer.Argument(
            help="site:URL, warc:FILES, wat:FILES, cc:CRAWL, list:FILES (Parquet, CSV, TSV, JSONL) or sample:N "
            "(built-in small web). FILES: a path, http or s3 address, or a pattern."
        ),
    ],
    root: Root = DEFAULT_ROOT,
    detector: Annotated[str, typer.Option(help="insightface, cascade or auto.")] = "auto",
    pack: Annotated[str, typer.Option(help="InsightFace model pack.")] = "buffalo_sc",
    rule: Annotated[
        list[str] | None, typer.Option(help="A rule's parameter, such as min_face_px=96; may be repeated.")
    ] = None,
    refresh: Annotated[bool, typer.Option(help="Crawl again: what is new, changed, or failed in passing.")] = False,
    recheck_days: Annotated[
        float, typer.Option(min=0, help="Ask again, conditionally, for pictures older than this (0: never).")
    ] = 0.0,
    limit: Annotated[int, typer.Option(min=0, help="Files to read at most, of those not read yet (0: all).")] = 0,
    cc_base: Annotated[str, typer.Option(help="A mirror of Common Crawl's files (default: its own address).")] = "",
    allow_private: AllowPrivate = False,
    part_urls: PartUrls = 2_000,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Faces per training shard.")] = 1_000,
    workers: Workers = 0,
    max_pages: Annotated[int, typer.Option(min=1, help="Pages to crawl at most.")] = 100_000,
    max_depth: Annotated[int, typer.Option(min=1, help="Links to follow from the start page at most.")] = 10,
    max_minutes: Annotated[float, typer.Option(help="Minutes to crawl at most.")] = 60.0,
    page_delay_s: Annotated[float, typer.Option(min=0, help="Seconds between two pages of a host.")] = 0.25,
    sitemaps: Annotated[bool, typer.Option(help="Read a site's sitemaps, too.")] = True,
    download_threads: DownloadThreads = 32,
    host_concurrency: HostConcurrency = 8,
    host_delay_s: HostDelay = 0.0,
    refusal_limit: RefusalLimit = 3,
    retries: Retries = 2,
    max_attempts: Annotated[int, typer.Option(min=1, help="Tries of one picture over all runs.")] = 6,
    embed: Annotated[
        bool, typer.Option("--embed", help="Make face embeddings (biometric data): splits and caps by person.")
    ] = False,
    embed_days: Annotated[int, typer.Option(min=1, help="Days after which embeddings are deleted.")] = 30,
    embed_precision: Annotated[
        str,
        typer.Option(help="float32, or bfloat16: faster on a CPU with AMX, needs openvino."),
    ] = "float32",
    provider: Annotated[
        str,
        typer.Option(
            help="onnxruntime's, for InsightFace, e.g. CUDAExecutionProvider (pictures go to it 16 at a time); "
            "gptface doctor lists them."
        ),
    ] = "CPUExecutionProvider",
    clip: Annotated[
        str,
        typer.Option(
            help="Measure how well captions fit faces by this CLIP of open_clip: MODEL:PRETRAINED, such as "
            "ViT-B-32:laion2b_s34b_b79k or ViT-B-32:weights.safetensors (rule min_clip_similarity)."
        ),
    ] = "",
    clip_device: Annotated[str, typer.Option(help="torch's, for --clip, e.g. cuda.")] = "cpu",
    catalog: Annotated[
        str,
        typer.Option(
            envvar="GPTFACE_CATALOG",
            help="postgres://user@host/database for the catalogue of a new root (default: SQLite in the root); the "
            "password comes from PGPASSWORD or ~/.pgpass.",
        ),
    ] = "",
    runner: Annotated[
        str, typer.Option(help="local, or ray: all nodes of a Ray cluster (docs/operations.md).")
    ] = "local",
    ray_address: Annotated[
        str, typer.Option(help="HOST:PORT of the cluster's head; auto: RAY_ADDRESS, else the one of this machine.")
    ] = "auto",
    ray_gpus: Annotated[
        float, typer.Option(min=0, help="GPUs of a node for one part, with --provider or --clip-device for GPUs.")
    ] = 1.0,
    metrics: Metrics = "",
) -> None:
    """Build the corpus: crawl, download, detect faces, curate, publish a release, write shards.

    May be stopped at any moment: the same command goes on where it was.

    Example: gptface build site:https://example.org/people/ --detector insightface --rule min_face_px=96
    """
    from flows.cli.ui import RichSink
    from flows.steps.config import BuildConfig
    from flows.steps.metrics import served_metrics
    from flows.steps.pipeline import build as run
    from flows.steps.pools import open_pool
    from flows.steps.runner import LocalRunner
    from warehouse.parameters import RuleParameters

    config = BuildConfig(
        source=source,
        root=str(root),
        detector=detector,
        pack=pack,
        part_urls=part_urls,
        workers=workers,
        refresh=refresh,
        recheck_days=recheck_days,
        limit=limit,
        cc_base=cc_base,
        allow_private=allow_private,
        max_pages=max_pages,
        max_depth=max_depth,
        max_minutes=max_minutes,
        page_delay_s=page_delay_s,
        sitemaps=sitemaps,
        download_threads=download_threads,
        host_concurrency=host_concurrency,
        host_delay_s=host_delay_s,
        refusal_limit=refusal_limit,
        retries=retries,
        max_attempts=max_attempts,
        embed=embed,
        embed_days=embed_days,
        embed_precision=embed_precision,
        provider=provider,
        clip=clip,
        clip_device=clip_device,
        catalog=catalog,
        runner=runner,
        ray_address=ray_address,
        ray_gpus=ray_gpus,
        rules=RuleParameters.from_words(rule or []),
        samples_per_shard=samples_per_shard,
    )
    config, pool = open_pool(config)
    with pool, served_metrics(root, metrics), RichSink() as sink:
        summary = run(config, LocalRunner(pool, sink))
    from flows.cli.tables import print_build

    print_build(summary)


def funnel(root: Root = DEFAULT_ROOT, at: At = None) -> None:
    """How many pairs came how far, and why the others did not.

    Example: gptface funnel --root ./gptface-data
    """
    from flows.cli.tables import print_funnel

    print_funnel(root, at)


def report(root: Root = DEFAULT_ROOT, at: At = None) -> None:
    """Write ROOT/reports/index.html anew: one page that needs nothing but itself.

    It draws the funnel with every reason; sizes, scores, pose, sharpness, brightness (flatness and CLIP similarity
    where measured); hosts, languages, duplicates, changes since the release before; balance by group with each
    rule's drop; some of what was dropped and of what was kept; the model's figures, losses, reconstructions and
    edits; shards, runs and configuration.

    With --at N it is ROOT/reports/release-0000N.html, about that release.

    Example: gptface report --root ./gptface-data
    """
    from flows.cli.ui import out
    from flows.steps.report import write_report

    out.print(f"Report: {write_report(root, at)}", soft_wrap=True)


def shard(
    root: Root = DEFAULT_ROOT,
    release: Release = 0,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Faces per shard.")] = 1_000,
    verify: Annotated[bool, typer.Option(help="Only check the shards against their index.")] = False,
    workers: Workers = 0,
) -> None:
    """Write (or check) the training shards of a release: WebDataset tars of aligned faces, byte for byte the same.

    Example: gptface shard --release 1 --verify
    """
    from flows.cli.ui import RichSink, out
    from flows.steps import shard as step
    from flows.steps.layout import Layout
    from flows.steps.runner import LocalRunner, WorkerPool
    from warehouse.lake import root_lock
    from warehouse.mirror import fetch

    layout = Layout(root)
    number = step.resolve_release(layout, release)
    if verify:
        fetch(root, "shards/*")
        checked = step.verify(layout, number)
        out.print(f"release {number}: {checked} shards agree with their index")
        return
    with root_lock(root), WorkerPool(workers) as pool, RichSink() as sink:
        index = step.write_shards(layout, number, samples_per_shard, LocalRunner(pool, sink))
    out.print(f"release {number}: {index.shard_count} shards in {layout.shards(number)}", soft_wrap=True)
