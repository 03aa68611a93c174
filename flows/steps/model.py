"""The steps that train and evaluate: the core package on a release's shards, and the rows that the lake keeps of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.steps.config import ConfigError, EvaluateConfig, TrainConfig
from flows.steps.layout import Layout

logger = logging.getLogger(__name__)
DONE_FILE = "training.json"  # the file that training writes last

Metrics = dict[str, dict[str, float | None]]


def train(
    layout: Layout,
    name: str,
    release: int,
    config: TrainConfig,
    progress: Callable[[str, float, float | None, str], None],
) -> dict[str, float]:
    """Train (or finish training) the model `name`: the last loss of each stage and the tokenizer's figures.

    SIGTERM or SIGINT ends it after the step under way, saved (TrainingInterrupted); the next call goes on there.
    """
    from flows.steps import torchrun
    from gptface_core.config import load_preset, override
    from gptface_core.training import Progress
    from gptface_core.training import train as run

    _quiet()
    shards, folder = layout.shards(release), layout.models / name
    parent = resolve_model(layout, config.init_from) if config.init_from else None
    schedule = {"steps": config.steps, "learning_rate": config.learning_rate}
    preset = override(
        load_preset(config.preset), {"training": {name: value for name, value in schedule.items() if value}}
    )

    def tell(event: Progress) -> None:
        losses = ", ".join(f"{name} {value:.3f}" for name, value in list(event.losses.items())[:3])
        progress(event.stage, event.step, event.steps, f"{losses}, {event.speed}" if event.speed else losses)

    if (processes := torchrun.count_processes(config)) > 1:
        summary = torchrun.train_in_processes(processes, shards, folder, preset, config, parent)
    else:
        summary = run(shards, folder, preset, config.seed, tell, config.stage, config.options, parent)
    tokenizer = {f"tokenizer_{name}": value for name, value in summary.tokenizer.items()}
    return {**tokenizer, **summary.losses}


def model_name(config: TrainConfig, release: int) -> str:
    return config.name or f"{Path(config.preset).stem}-r{release:05d}-s{config.seed}"


def join_training(config: TrainConfig) -> None:
    """What every process but the first does under `torchrun` or `accelerate launch`.

    Lock, record and the model's row are the first one's business.
    """
    from flows.steps.shard import resolve_release

    layout = Layout(Path(config.root))
    release = resolve_release(layout, config.release)
    train(layout, model_name(config, release), release, config, lambda *_: None)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Metrics; what was left out and why; which benchmarks an earlier run had measured."""

    metrics: Metrics
    left_out: dict[str, str]
    kept: tuple[str, ...] = ()


def evaluate(
    layout: Layout,
    folder: Path,
    release: int,
    config: EvaluateConfig,
    progress: Callable[[str, float, float | None, str], None],
) -> Evaluated:
    """Measure the model in `folder` on held-out faces of a release."""
    from gptface_core.evaluation import evaluate as run

    _quiet()
    labels = Path(config.labels) if config.labels else layout.labels(release)
    if config.labels and not labels.is_file():
        raise ConfigError(f"no labels at {labels}: give a Parquet file with a row_id column, or leave it out")
    found = run(
        folder,
        layout.shards(release),
        labels if labels.is_file() else None,
        folder / "evaluation",
        seed=config.seed,
        options=dataclasses.replace(config.options, cache=str(layout.root / "cache" / "sets")),
        fresh=config.fresh,
        on_progress=lambda done, total, note: progress("evaluate", done, total, note),
    )
    metrics = {**flatten(found["metrics"]), **rows_of(found["figures"], found["metrics"])}
    return Evaluated(metrics, found["left_out"], tuple(found["kept"]))


def _quiet() -> None:
    """Progress is shown by ourselves; transformers' own bars for saving and loading only disturb it."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def flatten(metrics: Mapping[str, Mapping[str, Any]]) -> Metrics:
    """The evaluation's metrics as plain rows: value, baseline (0 for a gain), low, high, samples.

    The attributes of the probe and the pictures' PSNR become rows of their own.
    """
    flat: Metrics = {}
    for name, metric in metrics.items():
        flat[name] = _row(metric, 0.0 if "gain" in name else None)
        for attribute, part in metric.get("attributes", {}).items():
            flat[f"probe_{attribute}"] = _row(part, None)
        psnr = metric.get("psnr_db", {})
        if psnr:
            baseline = float(psnr[metric["baseline"]])
            flat["inpaint_psnr_db"] = {"value": float(psnr["model"]), "baseline": baseline}
            flat["inpaint_psnr_db_at_best"] = {"value": float(psnr["tokenizer"]), "baseline": baseline}
    return flat


def rows_of(figures: Sequence[Mapping[str, Any]], headlines: Collection[str]) -> Metrics:
    """Figures that are no headlines as rows, each named by its benchmark and its metric."""
    keys = ("value", "baseline", "low", "high", "samples")
    return {
        f"{figure['benchmark']}_{figure['metric']}": {key: figure[key] for key in keys}
        for figure in figures
        if figure["metric"] not in headlines
    }


def _row(metric: Mapping[str, Any], baseline: float | None) -> dict[str, float | None]:
    """One metric's numbers; its sample count has the name of what was counted."""
    samples = next((metric[name] for name in ("pairs", "pictures", "rows") if name in metric), None)
    if baseline is None:
        baseline = metric.get("chance")
    return {
        "value": float(metric["value"]),
        "baseline": baseline,
        "low": metric.get("low"),
        "high": metric.get("high"),
        "samples": None if samples is None else float(samples),
    }


def check_name(layout: Layout, name: str, release: int, config: TrainConfig) -> None:
    """ConfigError where another training would take the champion's folder."""
    from gptface_core.config import load_preset

    done = layout.models / name / DONE_FILE
    if not done.is_file() or name != champion(layout):
        return
    told = json.loads(done.read_text("utf-8"))
    if (told["release"], told["seed"], told["preset"]) != (release, config.seed, load_preset(config.preset).name):
        raise ConfigError(f"--name {name} is the champion, which this would train over: choose another name")


def champion(layout: Layout) -> str | None:
    """Name of the champion; None where the lake knows none."""
    import warehouse
    from warehouse.champions import champion_of
    from warehouse.lake import has_lake

    if not has_lake(layout.root):
        return None
    with warehouse.connect(layout.root) as con:
        return champion_of(con)


def is_whole(layout: Layout, name: str) -> bool:
    """Whether the folder of this model is there, its training ended."""
    return (layout.models / name / DONE_FILE).is_file()


def chosen_model(layout: Layout) -> Path | None:
    """Folder of the champion, else of the newest trained model; None where there is none."""
    name, trained = champion(layout), trained_models(layout)
    if name is not None:
        if is_whole(layout, name):
            return layout.models / name
        logger.warning("the champion %s has no folder any more: taking the newest model instead", name)
    return trained[-1] if trained else None


def resolve_model(layout: Layout, model: str) -> Path:
    """Folder of a trained model: a name below ROOT/models, a path, or where empty the champion, else the newest;
    ConfigError where none fits."""
    from warehouse.mirror import fetch

    fetch(layout.root, "models/*")
    if model:
        for folder in (layout.models / model, Path(model)):
            if (folder / DONE_FILE).is_file():
                return folder
        names = ", ".join(path.name for path in trained_models(layout)) or "none yet: run gptface train"
        raise ConfigError(f"no trained model {model!r}: there is {names}")
    chosen = chosen_model(layout)
    if chosen is None:
        raise ConfigError(f"no trained model under {layout.models}: run gptface train --root {layout.root}")
    return chosen


def trained_models(layout: Layout) -> list[Path]:
    """Folders of the models whose training ended, the newest last."""
    done = sorted(layout.models.glob(f"*/{DONE_FILE}"), key=lambda path: (path.stat().st_mtime, path.parent.name))
    return [path.parent for path in done]


def register_model(
    layout: Layout, name: str, release: int, config: TrainConfig, metrics: dict[str, float], run_id: str
) -> None:
    """Write the model's row: what it is, where it lies, which shards it saw and which model it went on from."""
    from warehouse.register import register
    from warehouse.shards import INDEX_FILE

    index = (layout.shards(release) / INDEX_FILE).read_bytes()
    row = {
        "model": name,
        "kind": "gptface",
        "preset": config.preset,
        "path": (layout.models / name).relative_to(layout.root).as_posix(),
        "release": release,
        "shards_sha256": hashlib.sha256(index).hexdigest(),
        "metrics": json.dumps(metrics, sort_keys=True),
        "run_id": run_id,
        "created_at": dt.datetime.now(dt.UTC),
        "parent": resolve_model(layout, config.init_from).name if config.init_from else None,
    }
    register(layout.root, "models", row)


def register_evaluation(layout: Layout, model: str, release: int, metrics: Metrics, run_id: str) -> None:
    """Write one row per figure."""
    from warehouse.register import register

    now = dt.datetime.now(dt.UTC)
    rows = []
    for name, metric in metrics.items():
        samples = metric.get("samples")
        rows.append(
            {
                "model": model,
                "release": release,
                "metric": name,
                "value": metric["value"],
                "baseline": metric.get("baseline"),
                "low": metric.get("low"),
                "high": metric.get("high"),
                "samples": None if samples is None else int(samples),
                "run_id": run_id,
                "created_at": now,
            }
        )
    register(layout.root, "evaluations", rows)
