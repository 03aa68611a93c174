"""The automations of our Prefect server, as its REST interface takes them; `gptface up` installs them.

A release starts a training, a model an evaluation, and a run whose process is gone without a word is marked as crashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SNAPSHOT_PUBLISHED = "gptface.snapshot.published"
MODEL_TRAINED = "gptface.model.trained"
TRAINING = "train-gptface/gpu"
EVALUATION = "evaluate-gptface/local"

HEARTBEAT = "prefect.flow-run.heartbeat"
HEARTBEAT_S = 60  # Prefect's own default is 180
ZOMBIE_AFTER_S = 3 * HEARTBEAT_S
# What else ends the waiting for a heartbeat. TimedOut is the name of a failure, and a suspended run has no process.
_ENDS = ("Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "Paused", "Suspended")
# Whoever was started by an event waits for the run before it on the same root.
WAIT_MINUTES = 24 * 60

Document = dict[str, Any]


@dataclass(frozen=True)
class AutoTrain:
    """Whether releases start trainings (and models evaluations), and of what kind: see the flow train-gptface."""

    on: bool = False
    preset: str = "demo"
    processes: int = 0


def automations(deployments: Mapping[str, str], train: AutoTrain) -> list[Document]:
    """All automations; `deployments`: identity by name, of TRAINING and EVALUATION."""
    told = {"root": _payload("root"), "release": _payload("release"), "wait_minutes": WAIT_MINUTES}
    training = told | {"preset": train.preset, "processes": train.processes}
    evaluation = told | {"model": _payload("model")}
    return [
        _on_event("release starts training", SNAPSHOT_PUBLISHED, deployments[TRAINING], training, train.on),
        _on_event("model starts evaluation", MODEL_TRAINED, deployments[EVALUATION], evaluation, train.on),
        crash_zombies(),
    ]


def crash_zombies(within_s: int = ZOMBIE_AFTER_S) -> Document:
    """Runs that showed a heartbeat and then neither another nor an end within so many seconds."""
    message = f"no sign of life for {within_s} s: run it again, finished parts are kept"
    return {
        "name": "gptface: crash zombies",
        "description": "A killed machine leaves its runs Running for ever, and a concurrency limit counts them.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "for_each": ["prefect.resource.id"],
            "after": [HEARTBEAT],
            "expect": [HEARTBEAT, *(f"prefect.flow-run.{name}" for name in _ENDS)],
            "threshold": 1,
            "within": within_s,
        },
        "actions": [{"type": "change-flow-run-state", "state": "CRASHED", "name": "Crashed", "message": message}],
    }


def _on_event(name: str, event: str, deployment: str, parameters: Document, enabled: bool) -> Document:
    """Each such event starts one run of the deployment."""
    return {
        "name": f"gptface: {name}",
        "description": "Switched on and off by `gptface up --auto-train`.",
        "enabled": enabled,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "match": {"prefect.resource.id": "gptface.*"},
            "for_each": ["prefect.resource.id"],
            "expect": [event],
            "threshold": 1,
            "within": 0,
        },
        "actions": [
            {"type": "run-deployment", "source": "selected", "deployment_id": deployment, "parameters": parameters}
        ],
    }


def _payload(key: str) -> Document:
    """A value of the event's payload with its type, whatever a version of Prefect makes of a plain template."""
    template = f"{{{{ event.payload.{key} | tojson }}}}"
    return {"__prefect_kind": "json", "value": {"__prefect_kind": "jinja", "template": template}}
