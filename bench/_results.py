"""The results file of `bench.real_data`: parts that were run, answers kept for paired differences, the table."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gptface_core.datasets import FaceSet
from gptface_core.errors import InputError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.published import PUBLISHED
from gptface_core.evaluation.supervised import Attempt, Problem, compare
from gptface_core.files import write_text

MODEL_FREE = (":majority", ":hog", ":insightface", ":contrastive")


class Results:
    """The results file: `{"parts": {NAME: {"figures", "seconds", "commit", ...}}, "differences": {...}}`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.with_suffix(".predictions")
        self._commit = commit()  # of the code that is loaded: it may have moved on when a part ends
        self.document: dict[str, Any] = {"parts": {}, "differences": {}}
        if path.is_file():
            try:
                self.document = json.loads(path.read_text(encoding="utf-8"))
                self.document["parts"].keys()
            except (ValueError, KeyError, AttributeError) as error:
                raise InputError(f"{path} is no results file ({error}): name another one") from error

    def has(self, name: str, model: str | None) -> bool:
        """Whether the part is there. Raises InputError where it is that of another model, by digest."""
        part = self.document["parts"].get(name)
        if part is not None and part["model"] != model and not name.endswith(MODEL_FREE):
            raise InputError(f"{self.path} has {name} of another model: name another --out, or say --again")
        return part is not None

    def add(self, name: str, attempts: Sequence[Attempt], made: Sequence[Figure], notes: Mapping[str, Any]) -> None:
        """A part's figures and notes; the answers of the attempt on the whole training set go beside the file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = next((attempt for attempt in attempts if attempt.fraction == 1), attempts[-1])
        np.save(self._predictions(name), whole.predicted)
        figures = [asdict(figure) for figure in made]
        where = {"commit": self._commit, "hardware": platform.machine()}
        self.document["parts"][name] = {"figures": figures, **notes, **where}
        self._write()

    def compare_pair(self, set_name: str, pair: tuple[str, str], problem: Problem, test: FaceSet) -> None:
        """Difference of two methods whose parts are both there, paired over the same draws of people."""
        names = [f"{set_name}:{method}" for method in pair]
        if all(name in self.document["parts"] for name in names):
            first, second = (np.load(self._predictions(name)) for name in names)
            difference = compare(problem, test, first, second)
            self.document["differences"][f"{set_name}:{pair[0]}-{pair[1]}"] = difference
            self._write()

    def table(self) -> str:
        """Rows of Markdown: set, method, metric, value in per cent with its interval, baseline; published ones last."""
        rows = ["| set | method | metric | % | 95 % interval | constant |", "|---|---|---|---|---|---|"]
        for name, part in self.document["parts"].items():
            for f in part["figures"]:
                interval = f"{100 * f['low']:.1f} to {100 * f['high']:.1f}"
                share = f"{100 * f['value']:.2f} | {interval} | {100 * f['baseline']:.1f}"
                rows.append(f"| {name.split(':')[0]} | {f['details']['method']} | {f['metric']} | {share} |")
        rows += [f"| {p.data_set} | {p.method} | published ({p.source}) | {p.accuracy:.2f} | | |" for p in PUBLISHED]
        for name, metrics in self.document["differences"].items():
            for metric, d in metrics.items():
                interval = f"{100 * d['low']:+.1f} to {100 * d['high']:+.1f}"
                rows.append(f"| {name.replace(':', ' | ')} | {metric} | {100 * d['value']:+.2f} | {interval} | |")
        return "\n".join(rows)

    def summary(self) -> dict[str, Any]:
        values = {
            f"{name}:{figure['metric']}": round(figure["value"], 4)
            for name, part in self.document["parts"].items()
            for figure in part["figures"]
        }
        return {"bench": "real_data", "out": self.path.name, **values}

    def _predictions(self, name: str) -> Path:
        return self.folder / f"{name.replace(':', '-')}.npy"

    def _write(self) -> None:
        write_text(self.path, json.dumps(self.document, indent=1) + "\n")


def commit() -> str:
    """The checkout's commit, with + where files have changed since; empty outside of a checkout."""

    def git(*words: str) -> str:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
        return answer.stdout.strip()

    head = git("rev-parse", "--short", "HEAD")
    return head + ("+" if head and git("status", "--porcelain", "--untracked-files=no") else "")
