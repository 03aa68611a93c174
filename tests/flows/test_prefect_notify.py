"""How a night ended reaches a webhook, and a webhook that is not there stops nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.flows.webhook import Webhook, listening

pytestmark = pytest.mark.e2e  # importing Prefect's blocks takes seconds


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with listening() as hook:
        yield hook


def test_a_night_is_told_through_prefects_own_block(webhook: Webhook) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    from flows.prefect_notify import Notifier

    block = CustomWebhookNotificationBlock(
        name="nights", url=webhook.url, json_data={"text": "{{subject}}: {{body}}"}, timeout=10
    )
    Notifier(block).tell("GPTFace", 'rejected, "a" stays')
    assert [json.loads(body) for body in webhook.bodies] == [{"text": 'GPTFace: rejected, "a" stays'}]


def test_who_is_not_there_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    from flows.prefect_notify import Notifier, load_notifier

    with listening() as hook:
        url = hook.url
    Notifier(CustomWebhookNotificationBlock(name="x", url=url, json_data={"text": "{{body}}"})).tell("s", "b")
    assert "nobody was told" in caplog.text
    load_notifier("").tell("s", "b")
