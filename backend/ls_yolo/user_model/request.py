"""What belongs to a request, and how one instance of a class serves all of them."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config
from label_studio_sdk.label_interface.interface import LabelInterface

from ls_yolo.labelstudio.label_config import LabelConfigError


class NoLabelConfig(AttributeError):
    """The class asked for a labeling config before any request has brought one."""


@dataclass
class RequestContext:
    """What belongs to a request. ``project`` is its id as text, empty for none.

    ``config`` is the labeling config, None where there is none; ``extra_params`` is what
    the connection says, any JSON. ``making``: no request, the instance is being made.
    """

    project: str = ""
    config: str | None = None
    extra_params: Any = field(default_factory=dict)
    making: bool = False


_current: contextvars.ContextVar[RequestContext | None] = contextvars.ContextVar(
    "request", default=None
)


@contextlib.contextmanager
def during(request: RequestContext) -> Iterator[None]:
    """What runs inside belongs to ``request``."""
    token = _current.set(request)
    try:
        yield
    finally:
        _current.reset(token)


@functools.lru_cache(maxsize=64)
def _interface(config: str) -> Any:
    try:
        return LabelInterface(config)
    except Exception as error:  # the SDK raises whatever its XML and schema libraries raise
        raise LabelConfigError(
            f"the labeling config cannot be read: {error}; expected Label Studio's XML"
        ) from error


@functools.lru_cache(maxsize=64)
def _parsed(config: str) -> str:
    parse: Any = parse_config
    return json.dumps(parse(config))


def request_scoped(cls: Any) -> Any:
    """``cls`` with what belongs to a request taken from that request, so that one instance will do.

    What ``set`` stores while the instance is made holds for every project that has no value of its
    own. A project's own ``model_version`` holds until the class itself begins with another one:
    new weights with a new version count, whatever ``fit`` has set before.
    """

    class Scoped(cls):  # type: ignore[misc]
        def _request(self) -> RequestContext:
            # A thread that the class has started itself belongs to the request that runs.
            return _current.get() or self.__dict__.get("_running") or RequestContext()

        @property
        def project_id(self) -> str:
            return self._request().project

        @project_id.setter
        def project_id(self, value: Any) -> None:
            self._request().project = str(value or "")

        @property
        def label_interface(self) -> Any:
            return _interface(self._config())

        @label_interface.setter
        def label_interface(self, value: Any) -> None:
            """It follows from the labeling config."""

        def _config(self) -> str:
            config = self._request().config
            if config is None:
                raise NoLabelConfig(
                    "there is no labeling config yet: the instance is made once, before "
                    "any request; read it in predict()"
                )
            return config

        def get(self, key: str) -> Any:
            request = self._request()
            if key == "label_config":
                return request.config
            if key == "parsed_label_config":
                return _parsed(self._config())
            if key == "extra_params":
                return json.dumps(request.extra_params)
            first = self.__dict__.setdefault("_first", {})
            if request.making:
                return first.get(key)
            own = super().get(key)
            if key == "model_version" and super().get("model_version of") != first.get(key, ""):
                own = None
            return first.get(key) if own is None else own

        def set(self, key: str, value: Any) -> None:
            request = self._request()
            if key == "label_config":
                request.config = value
            elif key == "extra_params":
                request.extra_params = json.loads(value)
            elif key == "parsed_label_config":
                pass
            elif request.making:
                self.__dict__.setdefault("_first", {})[key] = value
            else:
                super().set(key, value)
                if key == "model_version":
                    super().set("model_version of", self.__dict__["_first"].get(key, ""))

        def has(self, key: str) -> bool:
            return self.get(key) is not None

    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Scoped, attribute, getattr(cls, attribute))
    return Scoped
