"""Which failures pass by themselves."""

from __future__ import annotations

from warehouse.schema import Reason

# Asked again by a later run, until the attempts are used up. What an answer has settled (404, a refusal, a body that
# is no picture) is not, and neither is a certificate that does not verify.
RETRIED_LATER: frozenset[Reason] = frozenset(
    {
        Reason.DNS,
        Reason.CONNECT,
        Reason.TIMEOUT,
        Reason.HTTP_SERVER_ERROR,
        Reason.BROKEN_TRANSFER,
        Reason.RATE_LIMITED,
        Reason.ROBOTS_UNREACHABLE,
        Reason.INTERNAL_ERROR,
    }
)

# Asked again at once, after a pause. A timeout has had its time, and a name without address stays so for minutes.
RETRIED_AT_ONCE: frozenset[Reason] = frozenset({Reason.CONNECT, Reason.HTTP_SERVER_ERROR, Reason.BROKEN_TRANSFER})
