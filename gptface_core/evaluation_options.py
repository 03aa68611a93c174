"""What a user may choose about an evaluation; imports nothing heavy, since command lines and flows hold one."""

from __future__ import annotations

from dataclasses import dataclass

from gptface_core.errors import InputError

SUITES = ("quick", "full")
HELD_OUT = ("val", "test")  # nothing is measured on train


@dataclass(frozen=True)
class EvaluationOptions:
    """What a user may choose about an evaluation.

    suite: quick or full. only: names of benchmarks, instead of a suite. faces: edited, at most, per attribute (others
        take their sample sizes from it).
    split: whose faces are edited, captioned and described (test; val while something is tuned). alphas: strengths of
        guidance to compare, always on val.
    face_models: folder of InsightFace's `models/`, for the identity of edited faces; empty: not measured, since
        embeddings are made for nobody who did not ask. pack: its model pack.
    data: folder of public data sets, for the benchmarks that read some; cache: keeps what is made of them for the next
        model (default: beside the results). fine_tune: steps of fine-tuning on each set, 0 for the frozen probe alone.
    classifier_steps, judge_steps: of the training of the independent classifiers of attributes and of expressions.
    """

    suite: str = "quick"
    only: tuple[str, ...] = ()
    faces: int = 200
    split: str = "test"
    alphas: tuple[float, ...] = ()
    face_models: str = ""
    pack: str = "buffalo_sc"
    data: str = ""
    cache: str = ""
    fine_tune: int = 0
    classifier_steps: int = 400
    judge_steps: int = 4000

    @property
    def is_part(self) -> bool:
        """Whether this is no evaluation, but some benchmarks of one, or a run on val."""
        return bool(self.only) or self.split != "test"

    @property
    def file(self) -> str:
        """Where results go: a part never takes the place of an evaluation."""
        if self.split != "test":
            return f"evaluation-{self.split}.json"
        return "evaluation-part.json" if self.only else "evaluation.json"

    @property
    def pictures(self) -> str:
        return "figures" if self.split == "test" else f"figures-{self.split}"

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise InputError(f"no suite '{self.suite}': choose {' or '.join(SUITES)}")
        if self.split not in HELD_OUT:
            raise InputError(f"no split '{self.split}' to measure on: choose {' or '.join(HELD_OUT)}")
        for name in ("faces", "classifier_steps", "judge_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: choose at least 1")
        if self.fine_tune < 0:
            raise InputError(f"fine_tune {self.fine_tune}: choose 0 (none) or more steps")
        if any(not 0 < alpha < float("inf") for alpha in self.alphas):
            raise InputError(f"alphas {', '.join(map(str, self.alphas))}: give numbers above 0")
