"""`train`: shards in, a model folder out. Stages with a checkpoint each: tokenizer, tokens, modelling,
warm-up, main. With `init_from` a trained model goes on: see `gptface_core.warm_start`.

A killed run, started again with the same shards, preset and seed, goes on from its newest checkpoint and ends with the
same weights. `training.json` is written last: a folder that has it is complete. Of several processes the first writes.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gptface_core.checkpoints import Checkpoints
from gptface_core.config import FORMAT_VERSION, Preset, RunOptions, load_preset
from gptface_core.distributed import Engine, compile_blocks, open_engine
from gptface_core.errors import InputError
from gptface_core.figures import save_reconstructions
from gptface_core.files import replacing, write_text
from gptface_core.image_tokenizer import PictureTokenizer, load_image_tokenizer, open_trained, read_settings
from gptface_core.loop import Surroundings
from gptface_core.model import GPTFace, GPTFaceConfig
from gptface_core.optimise import History, OnProgress, Progress, TrainingError, TrainingInterrupted, seed_stage
from gptface_core.pretrain import Stage, model_masked, train_jointly, warm_up
from gptface_core.shards import Pictures, ShardIndex, open_index, read_shard
from gptface_core.stopping import Stop, listening
from gptface_core.telemetry import FOLDER, Board, open_wandb
from gptface_core.text_tokenizer import TextTokenizer
from gptface_core.tokens import TokenSet, decode_split, load_split, tokenise_split
from gptface_core.train_tokenizer import fit_tokenizer, measure_tokenizer
from gptface_core.vq_tokenizer import open_vq
from gptface_core.warm_start import Parent, adopt, open_parent

__all__ = ["Progress", "RunOptions", "TrainingError", "TrainingInterrupted", "TrainingSummary", "train"]

logger = logging.getLogger(__name__)
DONE = "training.json"
RELEASE = "release"  # in the folder of checkpoints
STAGES = ("tokenizer", "all")


@dataclass(frozen=True)
class TrainingSummary:
    """What a finished training says of itself; also in `training.json`."""

    model_dir: str
    key: str  # digest of shards, preset and seed: the same key, the same model
    preset: str
    seed: int
    release: int
    samples: dict[str, int]
    parameters: int
    seconds: dict[str, float]  # by stage; of this run or of the one that finished the stage
    losses: dict[str, float]  # the last of each
    tokenizer: dict[str, float]
    parent: str = ""  # name of the model that it went on from


@dataclass(frozen=True)
class _Run:
    """The resolved inputs of one training, handed from stage to stage."""

    index: ShardIndex
    out: Path
    preset: Preset
    seed: int
    key: str
    on_progress: OnProgress | None
    options: RunOptions
    engine: Engine
    stop: Stop
    wandb: Any = None
    parent: Parent | None = None

    @property
    def work(self) -> Path:
        return self.out / "checkpoints"

    @property
    def is_main(self) -> bool:
        return self.engine.is_main

    def leave_if_asked(self) -> None:
        """Between two shards; within the other stages the loop does it."""
        if self.stop.number:
            self.stop.leave("a shard's tokens")

    def history(self, stage: str) -> History:
        return History(self.work / f"{stage}.history" if self.is_main else None, self.on_progress)

    def checkpoints(self, stage: str) -> Checkpoints:
        facts = {"release": self.index.release, "shards": self.index.digest(), "seed": self.seed}
        return Checkpoints(self.work, stage, {"key": self.key, "preset": self.preset.to_dict(), **facts})

    def around(self, stage: str, history: History) -> Surroundings:
        def board(done: int) -> Board:
            return Board(self.out, stage, done, self.wandb)

        checkpoints = self.checkpoints(stage)
        return Surroundings(self.engine, self.options, checkpoints, history, board if self.is_main else None, self.stop)


def train(
    shards_dir: Path | str,
    out_dir: Path | str,
    preset: str | Path | Preset = "demo",
    seed: int = 0,
    on_progress: OnProgress | None = None,
    stage: str = "all",
    options: RunOptions | None = None,
    init_from: Path | str | None = None,
) -> TrainingSummary:
    """Train on the shards of a release into `out_dir`; `stage` "tokenizer" stops after the image tokenizer.

    `init_from` is the folder of a trained model of the preset's shape to go on from, with its tokenizers.
    Deterministic on a CPU for a given preset (which fixes the number of threads). Under `torchrun` or `accelerate
    launch` every process calls this with the same arguments. Raises InputError for an unknown preset, key, stage or
    option, for missing or empty shards and for checkpoints that cannot be read, and for a parent that does not fit;
    TrainingError, naming the rows, for a loss that is no number or leaps, and where memory does not suffice;
    TrainingInterrupted after SIGTERM, SIGINT or SIGUSR1.
    """
    if stage not in STAGES:
        raise InputError(f"no stage '{stage}': choose {' or '.join(STAGES)}")
    resolved, options = load_preset(preset), options or RunOptions()
    parent = open_parent(init_from, resolved, Path(out_dir)) if init_from else None
    with _opened(shards_dir, out_dir, resolved, seed, on_progress, options, parent) as run:
        finished = _finished(run)
        if finished is not None:
            return finished
        image = _tokenizer_stage(run)
        if stage == "tokenizer":
            return _summary(run, 0)
        model = _model_stages(run, image)
        summary = _summary(run, sum(p.numel() for p in model.parameters()))
        if run.is_main:
            write_text(run.out / DONE, json.dumps(asdict(summary), indent=1))
        run.engine.wait()
        return summary


@contextmanager
def _opened(
    shards_dir: Path | str,
    out_dir: Path | str,
    preset: Preset,
    seed: int,
    report: OnProgress | None,
    options: RunOptions,
    parent: Parent | None,
) -> Iterator[_Run]:
    """The run with its folder, threads, processes and signals; threads and signals are put back at the end."""
    # The processes meet here: who starts first must have finished with the shards before others read them.
    engine, threads = open_engine(options), torch.get_num_threads()
    index, out = open_index(shards_dir), Path(out_dir)
    key = _key(index, preset, seed, parent)
    with listening() as stop:
        if engine.is_main:
            _prepare(out, key, index.release)
        engine.wait()
        wandb = open_wandb(options.wandb and engine.is_main, out, key, preset.to_dict())
        torch.set_num_threads(preset.threads)
        try:
            told = report if engine.is_main else None
            yield _Run(index, out, preset, seed, key, told, options, engine, stop, wandb, parent)
        finally:
            torch.set_num_threads(threads)
            if wandb is not None:
                wandb.finish()


def _key(index: ShardIndex, preset: Preset, seed: int, parent: Parent | None) -> str:
    import hashlib

    parts = [FORMAT_VERSION, index.digest(), preset.to_dict(), seed, *([parent.digest] if parent else [])]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _prepare(out: Path, key: str, release: int) -> None:
    """A folder for checkpoints with this key. A takedown finds unfinished trainings by the release noted there."""
    work = out / "checkpoints"
    work.mkdir(parents=True, exist_ok=True)
    mark = work / "key"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
        if mark.is_file():
            logger.warning("%s was trained on other data, with another preset or seed: it begins anew", out)
        # Checkpoints of other data or another preset are of no use; the done-marker goes first.
        (out / DONE).unlink(missing_ok=True)
        shutil.rmtree(work)
        shutil.rmtree(out / FOLDER, ignore_errors=True)
        work.mkdir()
        write_text(work / RELEASE, str(release))
        write_text(mark, key)


def _finished(run: _Run) -> TrainingSummary | None:
    path = run.out / DONE
    if not path.is_file():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    return TrainingSummary(**document) if document.get("key") == run.key else None


# -- stages: each leaves its result, then a marker with its seconds and losses, and is skipped where the marker stands


def _skip(run: _Run, stage: str) -> bool:
    return (run.work / f"{stage}.json").is_file()


def _mark(run: _Run, stage: str, history: History) -> None:
    """By the first process: the stage's marker, and the losses of all stages so far; its checkpoints have served."""
    lines, seconds = history.end()
    write_text(run.work / f"{stage}.json", json.dumps({"seconds": round(seconds, 2), "lines": lines}))
    known = [line + "\n" for record in _records(run).values() for line in record["lines"]]
    write_text(run.out / "history.jsonl", "".join(known))
    history.discard()
    run.checkpoints(stage).discard()


def _records(run: _Run) -> dict[str, Any]:
    """Marker by stage, in the order of training."""
    paths = {stage: run.work / f"{stage}.json" for stage in ("tokenizer", "tokens", "modelling", "warm-up", "main")}
    return {stage: json.loads(path.read_text(encoding="utf-8")) for stage, path in paths.items() if path.is_file()}


def _tokenizer_stage(run: _Run) -> PictureTokenizer:
    if _skip(run, "tokenizer"):
        return load_image_tokenizer(run.out)
    history, size_px = run.history("tokenizer"), run.preset.tokenizer.image_px
    held_out = decode_split(run.index.splits.get("val") or run.index.splits["train"][:1], size_px)[:256]
    settings = run.preset.tokenizer
    tokenizer: PictureTokenizer
    if run.parent is not None:
        tokenizer = load_image_tokenizer(run.parent.folder)
    elif settings.source:
        tokenizer = open_vq(settings) if settings.kind == "vq" else open_trained(settings)
    else:
        tokenizer = _fit_tokenizer(run, held_out, history)
    if run.is_main:
        tokenizer.save(run.out, metrics=measure_tokenizer(tokenizer, held_out))
        save_reconstructions(tokenizer, held_out[:12], run.out / "figures" / "reconstructions.png")
        _mark(run, "tokenizer", history)
    run.engine.wait()
    return load_image_tokenizer(run.out)


def _fit_tokenizer(run: _Run, held_out: Pictures, history: History) -> PictureTokenizer:
    rng = seed_stage(run.seed, "tokenizer")
    samples = [sample.row_id for shard in run.index.splits["train"] for sample in read_shard(shard)]
    pictures = decode_split(run.index.splits["train"], run.preset.tokenizer.image_px)
    return fit_tokenizer(pictures, samples, held_out, run.preset, run.around("tokenizer", history), rng)


def _model_stages(run: _Run, image: PictureTokenizer) -> GPTFace:
    train_tokens, validation, text = _tokens_stage(run, image)
    seed_stage(run.seed, "weights")
    model = GPTFace(_model_config(run, image, text))
    if run.parent is not None:
        adopt(model, run.parent)
    model.to(run.engine.device)
    compile_blocks(list(model.blocks), run.engine)
    stages = (("modelling", model_masked), ("warm-up", warm_up), ("main", train_jointly))
    for name, work in stages if run.parent is None else stages[-1:]:
        weights = run.work / f"{name}.safetensors"
        if _skip(run, name):
            model.load_state_dict(load_file(weights))
            continue
        history, rng = run.history(name), seed_stage(run.seed, name)
        work(Stage(model, train_tokens, validation, run.preset, image, rng, run.around(name, history)))
        if run.is_main:
            if name == "main":
                _save_model(model.eval(), run.out)
            else:
                _save_weights(model, weights)
            _mark(run, name, history)
        run.engine.wait()
    return model


def _tokens_stage(run: _Run, image: PictureTokenizer) -> tuple[TokenSet, TokenSet, TextTokenizer]:
    """Vocabulary and tokens of train and val. Cheap to come back to: finished token files are found again."""
    folder, slots = run.out / "tokens", run.preset.model.max_text_tokens
    views = {"train": run.preset.augment, "val": 1}
    if run.is_main:
        history = run.history("tokens")
        if not _skip(run, "tokens"):
            captions = (sample.caption for shard in run.index.splits["train"] for sample in read_shard(shard))
            pruned = run.preset.model.vocabulary == "pruned"
            text = TextTokenizer.from_corpus(captions) if pruned else TextTokenizer.full()
            (TextTokenizer.load(run.parent.folder).extended(text) if run.parent else text).save(run.out)
        text = TextTokenizer.load(run.out)
        for split, count in views.items():
            tokenise_split(run.index, split, image, text, folder, run.leave_if_asked, views=count)
        if not _skip(run, "tokens"):
            _mark(run, "tokens", history)
    run.engine.wait()
    text = TextTokenizer.load(run.out)
    sets = [load_split(run.index, split, image, text, folder, slots, count) for split, count in views.items()]
    return sets[0], sets[1], text


def _model_config(run: _Run, image: PictureTokenizer, text: TextTokenizer) -> GPTFaceConfig:
    levels = list(image.config.levels)
    provenance = {"release": run.index.release, "shards": run.index.digest(), "seed": run.seed, "key": run.key}
    if run.parent is not None:
        new_words = text.size - run.parent.words
        provenance["parent"] = {"model": run.parent.name, "weights": run.parent.digest, "new_words": new_words}
    return GPTFaceConfig.of_preset(
        run.preset,
        text.size,
        fsq_levels=levels or None,
        image_codes=None if levels else image.codes,
        provenance=provenance,
        resolved=run.preset.to_dict(),
    )


def _save_weights(model: GPTFace, path: Path) -> None:
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)


def _save_model(model: GPTFace, out: Path) -> None:
    """`save_pretrained` into a folder beside the final names, then renamed: never half a file."""
    temporary = out / "saving.tmp"
    try:
        model.save_pretrained(temporary)
        for name in ("config.json", "model.safetensors"):
            (temporary / name).replace(out / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _summary(run: _Run, parameters: int) -> TrainingSummary:
    records = _records(run)
    losses: dict[str, float] = {}
    for stage, record in records.items():
        for line in record["lines"][-1:]:
            entry = json.loads(line)
            losses |= {f"{stage}_{name}": v for name, v in entry.items() if name not in ("stage", "step")}
    return TrainingSummary(
        model_dir=run.out.name,
        key=run.key,
        preset=run.preset.name,
        seed=run.seed,
        release=run.index.release,
        samples={split: run.index.samples(split) for split in run.index.splits},
        parameters=parameters,
        seconds={stage: record["seconds"] for stage, record in records.items()},
        losses=losses,
        tokenizer=read_settings(run.out)["metrics"],
        parent=run.parent.name if run.parent else "",
    )
