"""``ls-yolo prelabel --kubernetes N``: the options of the command, for the pods of a Job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from ls_yolo.cli.common import ToolError, say
from ls_yolo.jobs import kubernetes, scope


def words(model: str, where: str, retry: bool, fields: bool, metrics: str) -> list[str]:
    """The options that each pod is called with. A filter is read and checked here: the pods do not
    have its file, and each would load its models before it finds a fault.

    Raises:
        ToolError: the filter cannot be read, or is none.
        typer.BadParameter: ``metrics`` is a file.
    """
    if metrics and "://" not in metrics:
        raise typer.BadParameter(
            f"--metrics {metrics}: with --kubernetes expected the URL of a Pushgateway: a file "
            "would go with its pod"
        )
    try:
        where = scope.text(where) if where else ""
    except scope.ScopeError as error:
        raise ToolError(f"--where: {error}") from None
    named = {"--model": model, "--where": where, "--metrics": metrics}
    flags = {"--retry": retry, "--fields": fields}
    return [
        *(word for name, value in named.items() if value for word in (name, value)),
        *(name for name, given in flags.items() if given),
    ]


def predict(
    project: str,
    pods: int,
    options: Sequence[str],
    namespace: str,
    queue: str,
    dry_run: bool,
    report: str,
) -> int:
    """Has pods predict a project, and says how it goes; returns the exit code.

    Raises:
        ToolError: the cluster does not do it.
        typer.BadParameter: ``report`` is no JSON file.
    """
    if report and not report.endswith(".json"):
        raise typer.BadParameter(
            f"--report {report}: with --kubernetes it is how each shard ended, in a file that ends "
            "in .json"
        )
    wanted = kubernetes.Wanted(project, pods, options, namespace, queue=queue)
    file = Path(report) if report else None
    try:
        return kubernetes.run(wanted, say, dry_run=dry_run, report=file)
    except kubernetes.ClusterError as error:
        raise ToolError(str(error)) from None
    except OSError as error:
        raise ToolError(f"--report {report}: cannot be written: {error.strerror}") from None
