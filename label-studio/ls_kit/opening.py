"""Who opens a task has it predicted, and no second copy is kept of what was stored meanwhile.

Upstream looks whether there is a prediction, asks the backend, which takes a while, and stores
without another look: two people at once, or one during bulk work, leave two.
"""

# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from typing import Any

from ls_kit import bulk


def patch() -> None:
    """Has upstream's own predictions looked at again, under the lock of the bulk calls."""
    from ml.models import MLBackend
    from tasks.models import Prediction

    upstream = MLBackend.predict_tasks

    def predict_tasks(self: Any, tasks: Any) -> Any:
        made = upstream(self, tasks)
        if not isinstance(made, list) or not made:
            return made
        versions = {row.model_version for row in made}
        if not all(versions):  # of another backend: no bulk work stores such
            return made
        ids = {row.task_id for row in made}
        for version in versions:
            bulk.settle(self.project, version, len(ids), ids)
        # Not ``made``: an annotation may come to refer to what the page is given.
        found = Prediction.objects.filter(task__in=ids, model_version__in=versions)
        return list(found.order_by("pk"))

    MLBackend.predict_tasks = predict_tasks
