"""What a flow tells everybody: a release was published, a model was trained. The automations listen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.events import emit_event

from flows.automations import MODEL_TRAINED, SNAPSHOT_PUBLISHED
from warehouse.store import store_of

if TYPE_CHECKING:
    from flows.steps.pipeline import BuildSummary, TrainSummary


def tell_published(summary: BuildSummary) -> None:
    """Event of a release that is ready to be trained on, shards and all."""
    root = _absolute(summary.root)
    _emit(
        SNAPSHOT_PUBLISHED,
        f"{root}/release/{summary.release}",
        {"root": root, "release": summary.release, "source": summary.source, "kept": summary.kept},
    )


def tell_trained(summary: TrainSummary, root: str) -> None:
    """Event of a finished model and the release that it was trained on."""
    root = _absolute(root)
    told = {"root": root, "release": summary.release, "model": summary.model, "preset": summary.preset}
    _emit(MODEL_TRAINED, f"{root}/model/{summary.model}", told)


def _emit(name: str, what: str, payload: dict[str, Any]) -> None:
    emit_event(name, {"prefect.resource.id": f"gptface.{what}", "prefect.resource.name": what}, payload=payload)


def _absolute(root: str) -> str:
    return store_of(Path(root)) or str(Path(root).resolve())
