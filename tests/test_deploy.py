"""deploy/compose.yaml, which no test can start: what it names is what the project has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

PLACE = Path(__file__).parents[1]
TEXT = (PLACE / "deploy/compose.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(TEXT)
    return loaded


@pytest.fixture(scope="module")
def pools() -> set[str]:
    document = yaml.safe_load((PLACE / "prefect.yaml").read_text(encoding="utf-8"))
    return {deployment["work_pool"]["name"] for deployment in document["deployments"]}


def test_every_pool_of_a_deployment_is_made_and_has_a_worker(compose: dict[str, Any], pools: set[str]) -> None:
    services = compose["services"]
    made = set(re.findall(r"work-pool create (\S+)", services["deploy"]["command"][-1]))
    commands = [service["command"] for name, service in services.items() if name.startswith("worker")]
    served = {command[command.index("--pool") + 1] for command in commands}
    assert made == served == pools


def test_who_waits_for_a_service_waits_for_what_that_will_tell(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            told = "healthcheck" in services[other]
            ends = services[other].get("restart") == "on-failure"
            assert wanted["condition"] == ("service_healthy" if told else "service_completed_successfully"), name
            assert told or ends, f"{name} waits for {other}, which neither ends nor says that it is well"


def test_volumes_and_configs_exist(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        named = {volume.split(":/")[0] for volume in service.get("volumes", ())}
        assert {re.sub(r"\$\{\w+:-(\w+)\}", r"\1", name) for name in named} <= set(compose["volumes"])
        assert {config["source"] for config in service.get("configs", ())} <= set(compose["configs"])


def test_no_password_is_written_down_and_none_may_be_empty(compose: dict[str, Any]) -> None:
    variables = [compose["x-client"], *(service.get("environment", {}) for service in compose["services"].values())]
    secrets = {value for each in variables for name, value in each.items() if re.search("PASSWORD|SECRET", name)}
    secrets |= set(re.findall(r"//\w+:(.+?)@", TEXT))  # in addresses
    assert secrets == {"${POSTGRES_PASSWORD:?}", "${STORE_PASSWORD:?}"}


def test_addresses_are_ones_that_the_project_reads(compose: dict[str, Any]) -> None:
    from flows.cli.up import _DATABASE
    from warehouse.catalog import check_address

    [catalog] = re.findall(r'"catalog": "([^"]+)"', TEXT)
    [made] = re.findall(r"CREATE DATABASE (\w+);", compose["configs"]["corpus"]["content"])
    assert check_address(catalog).endswith(f"@postgres/{made}")
    assert compose["x-client"]["GPTFACE_ROOT"].startswith("s3://gptface/")
    assert "mkdir('gptface')" in compose["services"]["bucket"]["command"][-1]
    assert set(compose["services"]["server"]["environment"]) <= set(_DATABASE)


def test_the_image_is_set_up_as_the_readme_says() -> None:
    image = (PLACE / "deploy/Dockerfile").read_text(encoding="utf-8")
    assert "RUN make setup" in image and "COPY --chown=gptface . ." in image
    assert {".git", ".venv", "gptface-data"} <= set((PLACE / ".dockerignore").read_text(encoding="utf-8").split())
