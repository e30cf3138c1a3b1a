"""From the Ruler to whoever is on call."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

from ..answers import Alert
from ..context import Context
from ..model import Result, fail, ok, skip

COMPONENT = "alertmanager"
TEST_PAGE = "TestPage"
PAGED = "page"
# Longer than a replica waits for those before it (15 s each) after the group's own wait.
PATIENCE = 90


def integrations(context: Context, receiver: str = PAGED) -> list[str]:
    """Return the kinds of integration that a receiver has in git, such as ``slack``."""
    config = context.repository.values(COMPONENT).get(COMPONENT, {}).get("config", {})
    return [
        key.removesuffix("_configs")
        for each in config.get("receivers") or []
        for key, given in each.items()
        if each.get("name") == receiver and key.endswith("_configs") and given
    ]


def alerts(context: Context) -> Result:
    """Alertmanager answers and has the Ruler's watchdog, an alert that always fires."""
    context.get(COMPONENT, "/-/ready")
    watchdogs = context.json(COMPONENT, "/api/v2/alerts", list[Alert], filter='alertname="Watchdog"')
    if not watchdogs:
        return fail("alerts-undelivered", "Alertmanager has no alert Watchdog, which the Ruler sends every minute")
    return ok("Alertmanager has the Ruler's Watchdog")


def receivers(context: Context) -> Result:
    """What Alertmanager sends is taken."""
    context.get(COMPONENT, "/-/ready")
    if failed := context.number("sum(increase(alertmanager_notifications_failed_total[10m]))"):
        return fail("receiver-refuses", f"{failed:.0f} notifications of the last 10 min failed")
    sent = _notified(context, "alertmanager_notifications_total")
    kinds = integrations(context)
    return ok(
        f"{sent:.0f} notifications sent; pages go to {', '.join(kinds) or 'Grafana alone: no receiver is set up'}"
    )


def test_page(context: Context) -> Result:
    """A page that says it is a test reaches the receiver ``page`` (only when asked for)."""
    if not context.test_page:
        return skip("send one with --test-page")
    names = ("alertmanager_notifications_total", "alertmanager_notifications_failed_total")
    before = [_notified(context, name, PAGED) for name in names]
    context.post(COMPONENT, "/api/v2/alerts", [_test_alert()])
    kinds = integrations(context)
    if not kinds:
        return ok(f"Alertmanager has {TEST_PAGE}; no receiver is set up, look for it in Grafana")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        sent, failed = (_notified(context, name, PAGED) - was for name, was in zip(names, before, strict=True))
        if failed:
            return fail("receiver-refuses", f"{TEST_PAGE} was refused {failed:.0f} times")
        if sent:
            return ok(f"{TEST_PAGE} sent by {', '.join(kinds)}")
        time.sleep(1)
    return fail(
        "receiver-refuses", f"{TEST_PAGE} was not sent within {PATIENCE} s: silenced, or another replica's turn"
    )


def _test_alert() -> dict[str, object]:
    until = datetime.now(timezone.utc) + timedelta(minutes=2)
    return {
        "labels": {"alertname": TEST_PAGE, "severity": "page", "component": "doctor"},
        "annotations": {"summary": "This is a test", "description": "Somebody ran `make doctor` with --test-page."},
        "endsAt": until.isoformat(),
    }


def _notified(context: Context, metric: str, receiver: str = "") -> float:
    """Return the sum of one of Alertmanager's counters, of one receiver or of all."""
    lines = context.get(COMPONENT, "/metrics").text.splitlines()
    label = f'receiver_name="{receiver}"' if receiver else ""
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{metric}{{") and label in line)
