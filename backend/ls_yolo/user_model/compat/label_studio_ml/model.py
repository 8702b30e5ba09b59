"""The class that a model.py derives from."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config
from label_studio_sdk._extensions.label_studio_tools.core.utils.io import get_local_path
from label_studio_sdk.label_interface.interface import LabelInterface

from ls_yolo.labelstudio.client import Studio

from .cache import BaseCache, MemoryCache, SqliteCache
from .response import ModelResponse
from .utils import is_preload_needed

log = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])

# The SDK has no types for these.
_get_local_path: Any = get_local_path
_parse_config: Any = parse_config

__all__ = ["LabelStudioMLBase", "ModelResponse", "predict_fn", "update_fn"]


@lru_cache(maxsize=4)
def _opened(folder: str) -> BaseCache:
    try:
        return SqliteCache(folder, "model-py.sqlite")
    except (OSError, sqlite3.Error) as error:
        log.warning("%s: %s; what set() stores is lost when the backend stops", folder, error)
        return MemoryCache(folder)


def _cache() -> BaseCache:
    return _opened(os.environ.get("MODEL_DIR") or ".")


def __getattr__(name: str) -> Any:
    if name == "CACHE":  # not made before somebody asks: it makes a file
        return _cache()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_predict_fn: Callable[..., Any] | None = None
_update_fn: Callable[..., Any] | None = None


def predict_fn(function: _Function) -> _Function:
    """A decorator: where the class has no ``predict``, ``function(tasks, context, helper=instance,
    **kwargs)`` predicts."""
    global _predict_fn
    _predict_fn = function
    return function


def update_fn(function: _Function) -> _Function:
    """A decorator: where the class has no ``fit``, ``function(event, data, helper=instance,
    **kwargs)`` learns."""
    global _update_fn
    _update_fn = function
    return function


class LabelStudioMLBase:
    """Derive from it and define ``predict``; ``setup`` and ``fit`` if they are needed."""

    INITIAL_MODEL_VERSION = "0.0.1"
    TRAIN_EVENTS = (
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATION_DELETED",
        "START_TRAINING",
    )

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        if label_config is not None:
            self.use_label_config(label_config)
        if not self.get("model_version"):
            self.set("model_version", self.INITIAL_MODEL_VERSION)
        self.setup()

    def setup(self) -> None:
        """Called once the instance is made; the place to set ``model_version``."""

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """The predictions of ``tasks``, in order: a `ModelResponse` or a list."""
        if _predict_fn:
            return _predict_fn(tasks, context, helper=self, **kwargs)
        raise NotImplementedError(f"{type(self).__name__} has no predict(tasks, context, **kwargs)")

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> Any:
        """Learns from an event of Label Studio; ``data`` is the body of its webhook."""
        return _update_fn(event, data, helper=self, **kwargs) if _update_fn else None

    def process_event(
        self, event: str, data: dict[str, Any], job_id: str, additional_params: dict[str, Any]
    ) -> Any:
        """Calls ``fit`` for an event that asks for it."""
        if event in self.TRAIN_EVENTS:
            return self.fit(event, data, job_id=job_id, **additional_params)
        return None

    def get(self, key: str) -> str | None:
        """What this project's ``set`` has stored; None where it has not."""
        return _cache()[self.project_id, key]

    def set(self, key: str, value: str) -> None:
        """Stores a text for this project; it is there after a restart.

        Raises:
            ValueError: the value is no text.
        """
        _cache()[self.project_id, key] = value

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def use_label_config(self, label_config: str) -> None:
        """Takes a labeling config, XML."""
        self.label_interface = LabelInterface(label_config)
        self.set("label_config", label_config)
        self.set("parsed_label_config", json.dumps(_parse_config(label_config)))

    def set_extra_params(self, extra_params: str) -> None:
        """Takes the connection's "extra params", JSON."""
        self.set("extra_params", extra_params)

    @property
    def extra_params(self) -> Any:
        """The "extra params" of the connection in Label Studio; ``{}`` where it has none."""
        return json.loads(self.get("extra_params") or "{}")

    @property
    def label_config(self) -> str | None:
        """The project's labeling config, XML."""
        return self.get("label_config")

    @property
    def parsed_label_config(self) -> dict[str, Any]:
        """Control name to ``type``, ``to_name``, ``inputs``, ``labels``, ``labels_attrs``."""
        found: dict[str, Any] = json.loads(self.get("parsed_label_config") or "{}")
        return found

    @property
    def model_version(self) -> str | None:
        return self.get("model_version")

    def bump_model_version(self) -> str:
        """Raises the second number of the version, sets it, and returns it.

        Raises:
            ValueError: the version does not begin with two numbers.
        """
        version = self.get("model_version") or self.INITIAL_MODEL_VERSION
        found = re.match(r"([0-9]+)\.([0-9]+)(?![0-9])", version)
        if not found:
            raise ValueError(f"model_version: found {version!r}, expected one such as '0.1.0'")
        version = f"{found[1]}.{int(found[2]) + 1}.0"
        self.set("model_version", version)
        return version

    def get_local_path(
        self,
        url: str,
        project_dir: str | None = None,
        ls_host: str | None = None,
        ls_access_token: str | None = None,
        task_id: int | None = None,
        **kwargs: Any,
    ) -> str:
        """The path of the file that a task's ``url`` stands for, fetched where it must be."""
        return str(
            _get_local_path(
                url,
                project_dir=project_dir,
                hostname=ls_host,
                access_token=ls_access_token,
                task_id=task_id,
                **kwargs,
            )
        )

    def preload_task_data(
        self, task: dict[str, Any], value: Any = None, read_file: bool = True
    ) -> Any:
        """``value`` with the text of the file, or with ``read_file=False`` its path, wherever it
        has the address of one. A dict is changed in place. Without a value: ``task["data"]``."""

        def loaded(value: Any) -> Any:
            if isinstance(value, dict):
                value.update({key: loaded(item) for key, item in value.items()})
                return value
            if isinstance(value, list):
                return [loaded(item) for item in value]
            if not isinstance(value, str) or not is_preload_needed(value):
                return value
            path = self.get_local_path(value, task_id=task.get("id"))
            return Path(path).read_text(encoding="utf-8") if read_file else path

        return loaded(task["data"] if value is None else value)

    def get_label_studio_access_token(self) -> str | None:
        """A token that Label Studio's API takes as it is; a Personal Access Token is exchanged."""
        url, key = os.environ.get("LABEL_STUDIO_URL"), os.environ.get("LABEL_STUDIO_API_KEY")
        if not url or not key:
            return key
        return Studio(url, key).headers()["Authorization"].partition(" ")[2]

    def get_first_tag_occurence(
        self,
        control_type: str | tuple[str, ...],
        object_type: str | tuple[str, ...],
        name_filter: Callable[..., bool] | None = None,
        to_name_filter: Callable[..., bool] | None = None,
    ) -> tuple[str, str, str]:
        """Control name, object name and key of the first control and object of these types.

        Raises:
            ValueError: the labeling config has none.
        """
        found: tuple[str, str, str] = self.label_interface.get_first_tag_occurence(
            control_type, object_type, name_filter, to_name_filter
        )
        return found

    def build_label_map(self, tag_name: str, names: Iterable[str]) -> dict[str, str]:
        """Class name to label of a control, by ``predicted_values``, else by name, without case."""
        names = list(names)
        found: dict[str, str] = {}
        interface: Any = self.label_interface
        attributes = interface.get_control(tag_name).labels_attrs or {}
        for label, tag in attributes.items():
            listed = str((tag.attr or {}).get("predicted_values", "")).split(",")
            same = [name for name in names if name in {part.strip() for part in listed}]
            same = same or [name for name in names if name == label]
            same = same or [name for name in names if name.casefold() == label.casefold()]
            found.update(dict.fromkeys(same, label))
        return found
