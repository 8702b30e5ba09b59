"""``/api/ls-kit/``: the bulk calls, for who may use the project, by Label Studio's own tokens.

Bodies and answers are JSON. What is wrong with a request is answered with its status and
``{"detail": ...}``.
"""

# mypy: disable-error-code="import-not-found,import-untyped,misc,untyped-decorator"

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from django.db import DataError, OperationalError
from django.urls import path
from drf_spectacular.utils import extend_schema
from projects.models import Project
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from rest_framework.exceptions import ValidationError as ApiValidationError
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ls_kit import bulk, tasks_of_storage

MOST_ROWS = 500
MOST_TASKS = 5000
LARGEST = 2**31 - 1
"""What a column of ids or of groups can hold."""
Id = Annotated[int, Field(ge=0, le=LARGEST)]


class Body(BaseModel):
    """What a request holds; anything else is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Scope(Body):
    """Which tasks are meant, and the version that they should have a good prediction of."""

    version: str = Field(min_length=1)
    where: dict[str, Any] | None = None
    shard: list[Id] | None = Field(default=None, min_length=2, max_length=2)
    highest: Id | None = None

    def part(self) -> tuple[int, int] | None:
        """The shard, as (index, total).

        Raises:
            ValueError: it is none.
        """
        if self.shard is None:
            return None
        index, total = self.shard
        if not 0 <= index < total:
            raise ValueError(
                f"shard: found {self.shard}, expected [index, total], 0 <= index < total"
            )
        return index, total


class MissingBody(Scope):
    after: Id = 0
    limit: int = Field(default=500, ge=1, le=MOST_TASKS)


class RowBody(Body):
    task: Id
    result: list[Any]
    score: FiniteFloat | int | None
    version: str = Field(min_length=1)
    cluster: int | None = Field(default=None, ge=-LARGEST, le=LARGEST)


class StoreBody(Body):
    rows: list[RowBody] = Field(max_length=MOST_ROWS)


class DeleteBody(Body):
    version: str
    limit: int = Field(default=5000, ge=1, le=20_000)


class NumbersBody(Body):
    values: dict[str, dict[str, FiniteFloat | int]] = Field(max_length=MOST_TASKS)


class MakeBody(Body):
    limit: int = Field(default=2000, ge=1, le=MOST_TASKS)


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def _project(request: Request, project: int) -> Any:
    found = Project.objects.for_user(request.user).filter(pk=project).first()
    if found is None or not found.has_permission(request.user):
        raise Refused(404, f"found no project {project} that {request.user} may use")
    return found


def _count(request: Request, project: int) -> dict[str, Any]:
    body, found = Scope.model_validate(request.data), _project(request, project)
    tasks = bulk.tasks_of(found, body.where, body.part(), request, highest=body.highest)
    return bulk.count(tasks, body.version)


def _missing(request: Request, project: int) -> dict[str, Any]:
    body, found = MissingBody.model_validate(request.data), _project(request, project)
    part = body.part()

    def tasks(after: int, highest: int | None) -> Any:
        return bulk.tasks_of(found, body.where, part, request, after, highest)

    return bulk.missing(found, tasks, body.version, body.after, body.limit, body.highest)


def _store(request: Request, project: int) -> dict[str, Any]:
    found = _project(request, project)
    body = StoreBody.model_validate(request.data)
    return bulk.store(found, [row.model_dump() for row in body.rows])


def _versions(request: Request, project: int) -> dict[str, Any]:
    return {"versions": bulk.versions(_project(request, project))}


def _delete(request: Request, project: int) -> dict[str, Any]:
    body, found = DeleteBody.model_validate(request.data), _project(request, project)
    return {"deleted": bulk.delete(found, body.version, body.limit)}


def _settle(request: Request, project: int) -> dict[str, Any]:
    body, found = DeleteBody.model_validate(request.data), _project(request, project)
    return {"deleted": bulk.settle(found, body.version, body.limit)}


def _numbers(request: Request, project: int) -> dict[str, Any]:
    body, found = NumbersBody.model_validate(request.data), _project(request, project)
    return bulk.numbers(found, {int(task): row for task, row in body.values.items()})


def _highest(request: Request, project: int) -> dict[str, Any]:
    return {"highest": bulk.highest(_project(request, project))}


def _make_tasks(request: Request, kind: str, storage: int) -> dict[str, Any]:
    body, model = MakeBody.model_validate(request.data), tasks_of_storage.KINDS.get(kind)
    if model is None:
        kinds = ", ".join(tasks_of_storage.KINDS)
        raise Refused(404, f"found no storages of kind {kind!r}, expected one of: {kinds}")
    mine = Project.objects.for_user(request.user)
    found = model.objects.filter(pk=storage, project__in=mine).select_related("project").first()
    if found is None or not found.has_permission(request.user):
        raise Refused(404, f"found no {kind} storage {storage} that {request.user} may use")
    return tasks_of_storage.make(found, body.limit)


def _calls(request: Request) -> dict[str, Any]:
    return {"calls": [*sorted(CALLS), "make-tasks"]}


class Call(APIView):
    """One function as a view: its result is the answer, what it raises the error."""

    parser_classes = (JSONParser,)
    function: Callable[..., dict[str, Any]] | None = None

    def _answer(self, request: Request, **names: Any) -> Response:
        assert self.function is not None
        try:
            return Response(self.function(request, **names))
        except Refused as error:
            return Response({"detail": str(error)}, status=error.status)
        except ValidationError as error:
            return Response({"detail": _told(error)}, status=400)
        except ApiValidationError as error:
            return Response({"detail": str(error.detail)}, status=400)
        except ValueError as error:
            return Response({"detail": str(error)}, status=400)
        except DataError as error:
            # What PostgreSQL cannot hold, and nobody has thought of.
            return Response({"detail": f"the database refuses it: {error}"}, status=400)
        except tasks_of_storage.Syncing as error:
            return Response({"detail": str(error)}, status=409, headers={"Retry-After": "5"})
        except tasks_of_storage.StorageError as error:
            return Response({"detail": str(error)}, status=422)
        except OperationalError as error:
            # A database that is locked for long, or that restarts; asked again, it may have time.
            return Response(
                {"detail": f"the database has no time: {error}"},
                status=503,
                headers={"Retry-After": "2"},
            )


class Get(Call):
    """A call that changes nothing and needs no body."""

    @extend_schema(exclude=True)
    def get(self, request: Request, **names: Any) -> Response:
        return self._answer(request, **names)


class Post(Call):
    """A call with a body."""

    @extend_schema(exclude=True)
    def post(self, request: Request, **names: Any) -> Response:
        return self._answer(request, **names)


def _told(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, found['loc'])) or 'body'}: {found['msg']}"
        for found in error.errors(include_url=False)[:10]
    )


CALLS: dict[str, tuple[type[Call], Callable[..., dict[str, Any]]]] = {
    "count": (Post, _count),
    "missing": (Post, _missing),
    "store": (Post, _store),
    "versions": (Get, _versions),
    "delete": (Post, _delete),
    "settle": (Post, _settle),
    "numbers": (Post, _numbers),
    "highest": (Get, _highest),
}
"""The calls of a project, by name."""

urlpatterns = [
    path("api/ls-kit/", Get.as_view(function=_calls)),
    *(
        path(f"api/ls-kit/projects/<int:project>/{name}/", view.as_view(function=call))
        for name, (view, call) in CALLS.items()
    ),
    path(
        "api/ls-kit/storages/<str:kind>/<int:storage>/make-tasks/",
        Post.as_view(function=_make_tasks),
    ),
]
