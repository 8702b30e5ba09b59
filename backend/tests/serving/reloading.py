"""What the tests of models that change have in common."""

from __future__ import annotations

import time

from ls_yolo import metrics

POLL = 0.02


def settle(models):
    """Looks until nothing waits, as the thread of `Registry.watch` does."""
    end = time.monotonic() + 10
    while not models.reconcile():
        assert time.monotonic() < end
        time.sleep(POLL / 4)


def until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(POLL / 4)


def row(models, name="a"):
    return next(row for row in models.status()["models"] if row["name"] == name)


def loads(calls):
    return [call["weights"] for call in calls if "warm_up" in call]


def releases(calls):
    return [call["weights"] for call in calls if "release" in call]


def reloads(outcome):
    return metrics.REGISTRY.get_sample_value("ls_yolo_reloads_total", {"outcome": outcome}) or 0
