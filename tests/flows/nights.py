"""Nights on a real Prefect server: one is a run of the deployment `nightly-retrain/nightly`, begun by its schedule."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import warehouse
from tests.flows.up_process import Up, start_up
from tests.flows.webhook import Webhook, listening
from warehouse.champions import champion_of, history

# A model of 48 px that learns to match within a minute, after so few steps of its first night that more faces help.
PRESET = {
    "preset": "demo",
    "name": "nights",
    "threads": 1,
    "tokenizer": {"image_px": 48, "grid": 6, "width": 64},
    "model": {"layers": 2},
    "tokenizer_training": {"steps": 200},
    "training": {
        "modelling_steps": 10,
        "warmup_steps": 30,
        "warmup_batch": 64,
        "steps": 10,
        "milm_batch": 16,
        "itm_batch": 48,
        "weight_itc": 1.0,
    },
}
SAVE_BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
block = CustomWebhookNotificationBlock(name="nights", url=sys.argv[1], json_data={"text": "{{subject}}: {{body}}"})
block.save("nights")
"""


@dataclass
class Nights:
    """The server and what was told by its webhook."""

    up: Up
    hook: Webhook
    folder: Path

    def night(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """One night by PRESET with these parameters; its artifacts by key."""
        preset = self.folder / "nights.json"
        preset.write_text(json.dumps(PRESET))
        shared = {"root": str(self.up.root), "preset": str(preset), "notify_block": "custom-webhook/nights"}
        run = self._scheduled_run({**shared, **parameters})
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}}
        return {artifact["key"]: artifact["data"] for artifact in self.up.ask("/artifacts/filter", body)}

    @property
    def told(self) -> list[str]:
        """What the webhook was told, night by night."""
        return [json.loads(body)["text"] for body in self.hook.bodies]

    def champion(self) -> str | None:
        with warehouse.connect(self.up.root) as con:
            return champion_of(con)

    def decisions(self) -> list[Any]:
        with warehouse.connect(self.up.root) as con:
            return list(history(con))

    def parent(self, model: str) -> str:
        """The model that this one went on from."""
        parent: str = json.loads((self.up.root / "models" / model / "training.json").read_text())["parent"]
        return parent

    def pictures_of_release(self, release: int) -> set[str]:
        """Paths of the pictures that were downloaded for a release."""
        with warehouse.connect(self.up.root, at=release) as con:
            rows = con.execute("SELECT image_url FROM images WHERE status = 'ok'").fetchall()
        return {"/" + row[0].split("/", 3)[3] for row in rows}

    def _scheduled_run(self, parameters: dict[str, Any], limit_s: float = 1800) -> str:
        """Shorten the deployment's schedule to seconds until a run has begun; wait for that run's end."""
        deployment = self.up.ask("/deployments/name/nightly-retrain/nightly")["id"]
        place = f"/deployments/{deployment}"
        self.up.ask(place, {"parameters": parameters, "enforce_parameter_schema": True}, method="PATCH")
        before = {run["id"] for run in self._runs(deployment)}
        self.up.ask(f"{place}/schedules", [{"active": True, "schedule": {"interval": 10.0}}])
        deadline = time.monotonic() + limit_s
        mine = ""
        while time.monotonic() < deadline:
            begun = [r for r in self._runs(deployment) if r["id"] not in before and r["state"]["type"] == "RUNNING"]
            if begun and not mine:
                mine = begun[0]["id"]
                for schedule in self.up.ask(f"{place}/schedules"):
                    if "interval" in schedule["schedule"]:
                        self.up.ask(f"{place}/schedules/{schedule['id']}", method="DELETE")
            state = self.up.ask(f"/flow_runs/{mine}")["state"] if mine else {"type": ""}
            if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                assert state["type"] == "COMPLETED", state
                return mine
            time.sleep(0.5)
        raise AssertionError(f"the night did not end within {limit_s} s")

    def _runs(self, deployment: str) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.up.ask(
            "/flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}, "sort": "START_TIME_DESC"}
        )
        return runs


def figure_of(decision: Any, metric: str) -> dict[str, Any]:
    """Both models' figures by a metric, paired, as the decision wrote them down."""
    figures: list[dict[str, Any]] = decision.figures["paired"]
    return next(row for row in figures if row["metric"] == metric)


@contextlib.contextmanager
def starting_nights(folder: Path, more_env: Mapping[str, str] | None = None) -> Iterator[Nights]:
    """`gptface up` below `folder`, with a notification block that tells a webhook."""
    up = start_up(folder, more=more_env)
    try:
        with listening() as hook:
            saved = subprocess.run(
                [sys.executable, "-c", SAVE_BLOCK, hook.url], env=up.env, capture_output=True, text=True, check=False
            )
            assert saved.returncode == 0, saved.stderr
            yield Nights(up, hook, folder)
    finally:
        if up.process.poll() is None:
            up.stop()
