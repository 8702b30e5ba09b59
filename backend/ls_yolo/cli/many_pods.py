"""``ls-yolo prelabel --kubernetes N``: the options of the command, for the pods of a Job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from ls_yolo.cli.common import ToolError, say
from ls_yolo.jobs import kubernetes


def words(model: str, where: str, retry: bool, fields: bool, metrics: str) -> list[str]:
    """The options that each pod is called with. A file with a filter is read here, since the pods
    do not have it.

    Raises:
        ToolError: it cannot be read.
    """
    if where.startswith("@"):
        try:
            where = Path(where[1:]).read_text()
        except OSError as error:
            raise ToolError(f"--where {where}: cannot be read: {error.strerror}") from None
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
