"""Telling people how a night ended, through a notification block of Prefect: Slack, e-mail, any webhook."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notifier:
    """Sends through one block, or nothing where no block was named. Being heard is no condition of a night: what cannot
    be sent is logged."""

    block: Any = None

    def tell(self, subject: str, body: str) -> None:
        if self.block is None:
            return
        try:
            with self.block.raise_on_failure():
                self.block.notify(body, subject)
        except Exception as error:  # noqa: BLE001  blocks raise what their services' clients raise
            logger.warning("nobody was told (%s): %s", type(error).__name__, " ".join(str(error).split()))


def load_notifier(name: str) -> Notifier:
    """`name` as Prefect shows it: "slack-webhook/team", "custom-webhook/x"; empty: nobody is told.

    Raises ConfigError at once, before a night's work, where there is no such block or it cannot send messages.
    """
    from flows.steps.config import ConfigError

    if not name:
        return Notifier()
    try:
        block = Block.load(name)
    except (ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"notify_block {name!r} cannot be loaded ({why}): make it on the Blocks page") from error
    if not isinstance(block, NotificationBlock):
        raise ConfigError(f"notify_block {name!r} sends no messages: name a notification block, e.g. slack-webhook/x")
    return Notifier(block)
