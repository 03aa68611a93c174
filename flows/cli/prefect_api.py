"""The few questions that `gptface up` has for a Prefect server, over plain HTTP: importing prefect takes seconds."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 5.0
# No proxy from the environment: the server is on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class PrefectApi:
    """A Prefect server's REST interface at `url` (it ends in `/api`)."""

    url: str

    def healthy(self) -> bool:
        """Does the server answer?"""
        return self._call("GET", "/health") is not None

    def has_pool(self, pool: str) -> bool:
        """Is there a work pool of this name?"""
        return self._call("GET", f"/work_pools/{pool}") is not None

    def has_worker(self, pool: str, worker: str) -> bool:
        """Does this worker serve the pool, as far as its last heartbeat tells?"""
        workers = self._call("POST", f"/work_pools/{pool}/workers/filter", {}) or []
        return any(row["name"] == worker and row["status"] == "ONLINE" for row in workers)

    def runs_in_state(self, *types: str) -> list[str]:
        """Identities of the flow runs in one of these state types, e.g. `RUNNING`."""
        rows = self._call("POST", "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": list(types)}}}})
        return [row["id"] for row in rows or []]

    def mark_crashed(self, run_id: str, message: str) -> None:
        """End a run whose process is gone, so that it no longer counts as running."""
        state = {"type": "CRASHED", "name": "Crashed", "message": message}
        self._call("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def deployment(self, name: str) -> str | None:
        """Identity of a deployment named FLOW/DEPLOYMENT."""
        found = self._call("GET", f"/deployments/name/{name}")
        return found["id"] if found else None

    def put_automation(self, automation: dict[str, Any]) -> bool:
        """Make the automation, or change the one of its name to be like it; whether the server took it."""
        named = self._call("POST", "/automations/filter", {"automations": {"name": {"any_": [automation["name"]]}}})
        if named is None:
            return False
        if named:
            return self._call("PUT", f"/automations/{named[0]['id']}", automation) is not None
        return self._call("POST", "/automations/", automation) is not None

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The parsed answer, or None where the server is not there or has no such thing."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with _opener.open(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read() or b"true")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None
