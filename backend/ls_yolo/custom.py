"""A ``model.py`` of the user's own: a class derived from ``LabelStudioMLBase``, served as it is.

label-studio-ml makes an instance for each request, which loads the weights each time. Here one is
made, once; what belongs to a request (project, labelling configuration, ``extra_params``) is looked
up where the class asks for it, so that the one instance serves every project.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import importlib
import inspect
import io
import json
import logging
import math
import os
import posixpath
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import requests
from flask import Blueprint, Flask, jsonify, request
from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config
from label_studio_sdk._extensions.label_studio_tools.core.utils import io as sdk_io
from label_studio_sdk.label_interface.interface import LabelInterface
from requests.adapters import BaseAdapter, HTTPAdapter
from werkzeug.exceptions import BadRequest

from ls_yolo import app as http
from ls_yolo import logs, metrics, selection, weights
from ls_yolo.batching import QueueFull
from ls_yolo.choices import Remembered
from ls_yolo.config import nearest
from ls_yolo.labels import LabelConfigError
from ls_yolo.media import MAX_BYTES, MediaError
from ls_yolo.predictor import LOOK_UP, ClientGone, PredictionError
from ls_yolo.studio import Studio
from ls_yolo.web import Web

log = logging.getLogger(__name__)

COMPAT = Path(__file__).parent / "compat"
"""The folder of our stand-in for label-studio-ml."""
WAIT = 90.0
"""How long a request waits for its turn, in seconds: Label Studio itself gives up after 100."""
EVENTS = 64
"""How many events may wait for ``fit``."""
FETCH_TIMEOUT = 30
"""How long Label Studio may be silent while a file is fetched, in seconds."""
CACHE_BYTES = 256 * 1024 * 1024
"""How much of what ``get_local_path`` has fetched is kept, in bytes."""
INITIAL_VERSION = "0.0.1"


class ModelClassError(RuntimeError):
    """MODEL_CLASS cannot be served; the message says what was found, expected, and what to do."""


class NoLabelConfig(AttributeError):
    """The class asked for a labelling configuration before any request has brought one."""


@dataclass
class Call:
    """What belongs to a request. ``project`` is its id as text, empty for none.

    ``config`` is the labelling configuration, None where there is none; ``extra_params`` is what
    the connection says, any JSON. ``making``: no request, the instance is being made.
    """

    project: str = ""
    config: str | None = None
    extra_params: Any = field(default_factory=dict)
    making: bool = False


_current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("call", default=None)


@contextlib.contextmanager
def _during(call: Call) -> Iterator[None]:
    token = _current.set(call)
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
            f"the labelling configuration cannot be read: {error}; expected Label Studio's XML"
        ) from error


@functools.lru_cache(maxsize=64)
def _parsed(config: str) -> str:
    parse: Any = parse_config
    return json.dumps(parse(config))


def find(spec: str, root: Path) -> type:
    """The class that ``spec``, ``module:Class``, names; its module may lie in ``root``.

    Python packages may lie in ``root/packages``. What is installed comes first, ours last.

    Raises:
        ModelClassError: there is none, or it is not derived from ``LabelStudioMLBase``.
    """
    module_name, _, name = spec.partition(":")
    for folder in (root, root / "packages", COMPAT):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name == module_name:
            raise ModelClassError(
                f"MODEL_CLASS: found {spec!r}, but no module is called {module_name!r}; "
                f"expected the file {root / (module_name.replace('.', '/') + '.py')}"
            ) from None
        raise ModelClassError(
            f"MODEL_CLASS: {module_name} imports {error.name!r}, which is not installed; "
            f"put it in {root / 'packages'} or make an image that has it (docs/model-py.md)"
        ) from None
    except Exception:
        raise ModelClassError(
            f"MODEL_CLASS: {module_name} cannot be imported:\n{traceback.format_exc()}"
        ) from None
    package = importlib.import_module("label_studio_ml.model")
    base = package.LabelStudioMLBase
    # With @predict_fn the base class itself predicts.
    decorated = getattr(package, "_predict_fn", None) is not None
    fitting = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and (value is not base or decorated)
    }
    if name not in fitting:
        what = "is not derived from LabelStudioMLBase" if hasattr(module, name) else "is not there"
        raise ModelClassError(
            f"MODEL_CLASS: found {spec!r}, but {name!r} {what}{nearest(name, list(fitting))}; "
            f"{module_name} has: {', '.join(fitting) or 'no such class'}"
        )
    return fitting[name]


def shared(cls: Any) -> Any:
    """``cls`` with what belongs to a request taken from that request, so that one instance will do.

    What ``set`` stores while the instance is made holds for every project that has no value of its
    own. A project's own ``model_version`` holds until the class itself begins with another one:
    new weights with a new version count, whatever ``fit`` has set before.
    """

    class Shared(cls):  # type: ignore[misc]
        def _call(self) -> Call:
            # A thread that the class has started itself belongs to the call that runs.
            return _current.get() or self.__dict__.get("_running") or Call()

        @property
        def project_id(self) -> str:
            return self._call().project

        @project_id.setter
        def project_id(self, value: Any) -> None:
            self._call().project = str(value or "")

        @property
        def label_interface(self) -> Any:
            return _interface(self._config())

        @label_interface.setter
        def label_interface(self, value: Any) -> None:
            """It follows from the labelling configuration."""

        def _config(self) -> str:
            config = self._call().config
            if config is None:
                raise NoLabelConfig(
                    "there is no labelling configuration yet: the instance is made once, before "
                    "any request; read it in predict()"
                )
            return config

        def get(self, key: str) -> Any:
            call = self._call()
            if key == "label_config":
                return call.config
            if key == "parsed_label_config":
                return _parsed(self._config())
            if key == "extra_params":
                return json.dumps(call.extra_params)
            first = self.__dict__.setdefault("_first", {})
            if call.making:
                return first.get(key)
            own = super().get(key)
            if key == "model_version" and super().get("model_version of") != first.get(key, ""):
                own = None
            return first.get(key) if own is None else own

        def set(self, key: str, value: Any) -> None:
            call = self._call()
            if key == "label_config":
                call.config = value
            elif key == "extra_params":
                call.extra_params = json.loads(value)
            elif key == "parsed_label_config":
                pass
            elif call.making:
                self.__dict__.setdefault("_first", {})[key] = value
            else:
                super().set(key, value)
                if key == "model_version":
                    super().set("model_version of", self.__dict__["_first"].get(key, ""))

        def has(self, key: str) -> bool:
            return self.get(key) is not None

    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Shared, attribute, getattr(cls, attribute))
    return Shared


class _Session(requests.Session):
    """What the SDK's ``get_local_path`` fetches with. Label Studio gets a token that is exchanged
    and refreshed, where the SDK would send a Personal Access Token as it is; all other addresses
    are fetched by ``web``, within its limits. Nobody is waited for long."""

    def __init__(self, studio: Studio | None, web: Web) -> None:
        super().__init__()
        self._studio = studio
        for scheme in ("http://", "https://"):
            self.mount(scheme, _ByWeb(web))
        if studio:
            self.mount(studio.url + "/", HTTPAdapter())

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", FETCH_TIMEOUT)
        if self._studio and str(url).startswith(self._studio.url + "/"):
            headers = self._studio.client._client_wrapper.get_headers()
            kwargs["headers"] = {
                **(kwargs.get("headers") or {}),
                "Authorization": headers["Authorization"],
            }
        return super().request(method, url, *args, **kwargs)


class _ByWeb(BaseAdapter):
    """Answers with what ``web`` fetches. Raises `MediaError` where it may not, or cannot."""

    def __init__(self, web: Web) -> None:
        super().__init__()
        self._web = web

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 200, request, request.url
        answer.raw = io.BytesIO(self._web.fetch(request.url, MAX_BYTES))
        return answer

    def close(self) -> None:
        """There is nothing to close."""


class Own:
    """One instance of the user's class, and what calls it, one call at a time.

    ``files`` is the folder of the local files. ``studio`` is None without a token. ``web`` fetches
    what ``get_local_path`` is asked for at other addresses.

    Raises:
        ModelClassError: the class cannot be found or made.
    """

    def __init__(
        self,
        spec: str,
        root: Path,
        files: Path,
        studio: Studio | None,
        web: Web,
        wait: float = WAIT,
    ) -> None:
        self._class = find(spec, root)
        self.name = self._class.__name__
        self._root = root
        self._files = files
        self._studio = studio
        self._web = web
        self._wait = wait
        self._lock = threading.Lock()
        self._instance: Any = None
        self._one_by_one = False
        self._told: set[str] = set()
        self._projects: set[str] = set()
        self._events: queue.Queue[tuple[Call, str, dict[str, Any]]] = queue.Queue(EVENTS)
        self._starting = threading.Lock()
        self._trainer: threading.Thread | None = None
        self._training_since: float | None = None
        # "weights/best.pt" means the folder that model.py is in.
        os.chdir(root)
        try:
            self._make(Call())
        except NoLabelConfig:
            log.warning(
                "%s asks for a labelling configuration when it is made, so it is made with the "
                "first request that has one, which may take longer than Label Studio waits (3 s); "
                "better to ask in predict()",
                self.name,
            )

    def _make(self, call: Call) -> None:
        """Makes the instance, or raises: ModelClassError, NoLabelConfig."""
        started = time.monotonic()
        with _during(Call(config=call.config, making=True)), self._surroundings():
            try:
                made = shared(self._class)
                self._instance = made(project_id=None, label_config=call.config)
            except NoLabelConfig:
                raise
            except Exception:
                raise ModelClassError(
                    f"MODEL_CLASS: {self.name} cannot be made:\n{traceback.format_exc()}"
                ) from None
        version = self.initial
        metrics.set_model(self.name, version)
        log.info("made %s %s in %.1f s", self.name, version, time.monotonic() - started)

    def version(self, call: Call, gone: Callable[[], bool] = lambda: False) -> str:
        """``model_version`` for the project of ``call``; it never waits for a prediction.

        Raises:
            ModelClassError: the instance has to be made first, and cannot be.
            QueueFull, ClientGone: as `predict` does, where the instance has to be made first.
        """
        if self._instance is None:
            with self._turn(gone):
                if self._instance is None:
                    with contextlib.suppress(NoLabelConfig):
                        self._make(call)
        if self._instance is None:
            return INITIAL_VERSION
        if call.project:
            self._projects.add(call.project)
        with _during(call):
            return str(self._instance.get("model_version") or INITIAL_VERSION)

    @property
    def initial(self) -> str:
        """The version that the class itself begins with."""
        return INITIAL_VERSION if self._instance is None else self.version(Call())

    def versions(self) -> list[str]:
        """The versions that answer: of every project that has asked since the start."""
        calls = [Call(), *(Call(project) for project in sorted(self._projects))]
        return list(dict.fromkeys(self.version(call) for call in calls))

    def predict(
        self,
        tasks: Sequence[dict[str, Any]],
        call: Call,
        params: Mapping[str, Any],
        gone: Callable[[], bool] = lambda: False,
    ) -> list[Any]:
        """One entry a task, in order: a prediction or a list of them, each with a version.

        Where the class fails, or gives another number of answers than tasks, it is asked again with
        one task at a time. A task that fails alone has an empty result, a score of None and an
        ``error``.

        Raises:
            PredictionError: every task failed, and not because its file is missing.
            QueueFull: the class was busy for too long.
            ClientGone: nobody waits for the answer any longer.
        """
        version = self.version(call, gone)
        if len(tasks) > 1 and not self._one_by_one:
            try:
                found = self._ask(tasks, call, params, gone)
                if len(found) == len(tasks):
                    return [self._entry(item, version) for item in found]
                # One answer for all tasks is a way to write predict(); another number of answers
                # may be this request's own fault.
                self._one_by_one = len(found) == 1
                self._tell_once(
                    f"{self.name}.predict gave {len(found)} predictions for {len(tasks)} tasks, "
                    "expected one for each, in order; it is given one task at a time, which takes "
                    "longer"
                )
            except (QueueFull, ClientGone):
                raise
            except Exception as error:
                log.warning(
                    "%s.predict failed for %d tasks (%s: %s); each is tried alone",
                    self.name, len(tasks), type(error).__name__, error,
                )  # fmt: skip
        answers, broken, why = [], 0, ""
        for task in tasks:
            try:
                found = self._ask([task], call, params, gone)
                # Several predictions of one task are no fault, nor is none: nothing was found.
                entry = found[0] if len(found) == 1 else found
                answers.append(self._entry(entry or {"result": [], "score": 0.0}, version))
                continue
            except (QueueFull, ClientGone):
                raise
            except (FileNotFoundError, MediaError) as error:
                metrics.count_error(error)
                why = f"no file: {error}"
                log.warning("task %s: empty prediction: %s", task.get("id", "?"), why)
            except Exception as error:
                broken, why = broken + 1, f"{self.name}.predict failed: {type(error).__name__}"
                metrics.count_error(error)
                log.exception("task %s: empty prediction: %s", task.get("id", "?"), why)
            answers.append({"result": [], "score": None, "model_version": version, "error": why})
        if tasks and broken == len(tasks):
            raise PredictionError(f"no task could be predicted: {why}; the backend's log says more")
        return answers

    def _ask(
        self,
        tasks: Sequence[dict[str, Any]],
        call: Call,
        params: Mapping[str, Any],
        gone: Callable[[], bool],
    ) -> list[Any]:
        """What ``predict`` returns, as a list."""
        with self._turn(gone), self._surroundings(), _during(call):
            if self._instance is None:
                raise PredictionError(f"{self.name} is not made: no labelling configuration came")
            self._instance.__dict__["_running"] = call
            predict = self._instance.predict
            more = {k: v for k, v in params.items() if k not in ("self", "tasks", "context")}
            options = {"context": params.get("context", {}), **more}
            with metrics.stage("infer"):
                # A copy: it may be needed again, and classes do change their tasks.
                answer = predict(copy.deepcopy(list(tasks)), **_taken(predict, options))
            metrics.BATCH_SIZE.labels(self.name).observe(len(tasks))
            metrics.IMAGES.labels(self.name).inc(len(tasks))
            default = getattr(answer, "model_version", None)
            if hasattr(answer, "predictions"):
                answer = answer.predictions
            elif isinstance(answer, Mapping):
                answer = answer.get("predictions", [answer])
            if answer is None:
                answer = []
            if not isinstance(answer, Sequence) or isinstance(answer, str):
                raise TypeError(
                    f"predict returned {type(answer).__name__}, "
                    "expected a ModelResponse or a list of predictions"
                )
            found = [plain(item) for item in answer]
        for item in found:
            for prediction in item if isinstance(item, list) else [item]:
                if isinstance(prediction, dict) and not prediction.get("model_version"):
                    prediction["model_version"] = default
        return found

    def _entry(self, item: Any, version: str) -> Any:
        """A prediction, or a list of them, that Label Studio takes; one that it does not would cost
        the whole request."""
        if isinstance(item, list):
            return [self._entry(part, version) for part in item]
        if not isinstance(item, dict) or not isinstance(item.get("result", []), list):
            self._tell_once(
                f"{self.name}.predict: a prediction is {str(item)[:80]!r}, "
                "expected a dict with a list as result; it counts as empty"
            )
            item = {}
        regions = item.get("result") or []
        kept = [region for region in regions if _finite(region)]
        if len(kept) < len(regions):
            self._tell_once(f"{self.name}.predict: regions with NaN or infinity are left out")
        score = item.get("score", 0.0)
        if not isinstance(score, int | float) or not math.isfinite(score):
            if score is not None:
                self._tell_once(f"{self.name}.predict: found score {score!r}, expected a number")
            score = 0.0
        own = str(item.get("model_version") or version)
        if own != version:
            self._tell_once(
                f"{self.name}.predict: found model_version {own!r}, but setup has said "
                f"{version!r}; Label Studio predicts such tasks again and again. Use "
                'self.get("model_version")'
            )
        rest = {key: value for key, value in item.items() if _finite(value)}
        return {**rest, "result": kept, "score": score, "model_version": own}

    def _tell_once(self, text: str) -> None:
        if text not in self._told and len(self._told) < 100:
            self._told.add(text)
            log.warning("%s", text)

    @property
    def trains(self) -> bool:
        """Whether the class has a ``fit`` of its own, or ``@update_fn`` names one."""
        package = importlib.import_module("label_studio_ml.model")
        own = self._class.fit is not package.LabelStudioMLBase.fit  # type: ignore[attr-defined]
        return own or getattr(package, "_update_fn", None) is not None

    @property
    def events(self) -> frozenset[str]:
        """The actions of Label Studio that ``fit`` is called for."""
        return frozenset(self._class.TRAIN_EVENTS)  # type: ignore[attr-defined]

    def train(self, event: str, data: dict[str, Any], call: Call) -> None:
        """Has ``fit`` called in the background, after those that wait already.

        Raises:
            QueueFull: too many events wait.
        """
        try:
            self._events.put_nowait((call, event, data))
        except queue.Full:
            raise QueueFull(f"{EVENTS} events wait for fit() already; try again later") from None
        with self._starting:
            if self._trainer is None:
                # A daemon: training may take hours, and does not keep the service from stopping.
                self._trainer = threading.Thread(target=self._fit_all, name="fit", daemon=True)
                self._trainer.start()

    def _fit_all(self) -> None:
        while True:
            call, event, data = self._events.get()
            try:
                self._fit(call, event, data)
            except Exception as error:
                metrics.count_error(error)
                log.exception("project %s: fit(%r) failed", call.project, event)
            finally:
                self._events.task_done()

    def _fit(self, call: Call, event: str, data: dict[str, Any]) -> None:
        before = self.version(call)
        if self._instance is None:
            raise PredictionError(f"{self.name} is not made: no labelling configuration came")
        with self._lock, self._surroundings(), _during(call):
            self._training_since = time.monotonic()
            self._instance.__dict__["_running"] = call
            log.info("project %s: fit(%r) begins", call.project, event)
            try:
                self._instance.fit(event, data)
            finally:
                took = time.monotonic() - self._training_since
                self._training_since = None
        after = self.version(call)
        log.info(
            "project %s: fit(%r) took %.1f s; model_version %s",
            call.project, event, took, after if after == before else f"{before} -> {after}",
        )  # fmt: skip

    def finish(self) -> None:
        """Returns when every event that waits has been through ``fit``."""
        self._events.join()

    @contextlib.contextmanager
    def _turn(self, gone: Callable[[], bool]) -> Iterator[None]:
        """One call at a time: a model object is not safe to share between threads."""
        end, taken = time.monotonic() + self._wait, False
        try:
            while not taken:
                left = max(end - time.monotonic(), 0.0)
                taken = self._lock.acquire(timeout=min(left, LOOK_UP))
                if gone():
                    raise ClientGone("the client is gone; its request was dropped")
                if not taken and left <= LOOK_UP:
                    raise QueueFull(self._busy())
            yield
        finally:
            if taken:
                self._lock.release()

    def _busy(self) -> str:
        since = self._training_since
        if since is None:
            return f"{self.name} is busy with other requests; try again later"
        return f"{self.name} trains for {time.monotonic() - since:.0f} s; try again later"

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        """What ``get_local_path`` of the SDK may use: our folder of files, our token."""
        files: Any = sdk_io.local_files_resolver
        session: Any = sdk_io.http_session
        with _Session(self._studio, self._web) as ours, files(self._local_file), session(ours):
            yield
        _prune(Path(cast(Any, sdk_io.get_cache_dir)()))

    def _local_file(self, name: str) -> str | None:
        """The path of a local file; None where it lies outside the folder, links followed."""
        root = self._files.resolve()
        path = (root / posixpath.normpath(name).lstrip("/")).resolve()
        if not path.is_relative_to(root):
            return None
        if not path.is_file():
            raise FileNotFoundError(
                f"{name!r:.200}: not found in {root}; "
                "mount the same folder in Label Studio and in the backend"
            )
        return str(path)


def plain(value: Any) -> Any:
    """``value`` as JSON has it: pydantic models and numpy's and torch's numbers taken apart."""
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray) or type(value).__module__ == "torch":
        return value.tolist()
    return value


def _finite(value: Any) -> bool:
    """Whether no number in ``value`` is NaN or infinite, which is no JSON."""
    if isinstance(value, Mapping):
        return all(_finite(item) for item in value.values())
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _taken(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``options`` that ``function`` takes."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(options)
    return {key: value for key, value in options.items() if key in parameters}


def _prune(folder: Path, limit: int = CACHE_BYTES) -> None:
    """Deletes the oldest files of ``folder`` beyond ``limit`` bytes; the SDK itself deletes none,
    and it is a folder in memory."""
    with contextlib.suppress(OSError):
        found = sorted(
            ((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in
             os.scandir(folder) if entry.is_file(follow_symlinks=False)), reverse=True,
        )  # fmt: skip
        total = 0
        for _, size, path in found:
            total += size
            if total > limit:
                Path(path).unlink(missing_ok=True)


def parameters(value: Any) -> dict[str, Any]:
    """``extra_params`` as a class reads them: an object; JSON text too.

    A list or a name alone becomes ``{"0": ..., "1": ...}``, so that ``.values()`` has them.
    """
    if isinstance(value, str):
        text = value
        try:
            value = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError):
            value = text
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if value is None or value == "":
        return {}
    items = value if isinstance(value, list) else [value]
    return {str(number): item for number, item in enumerate(items)}


def create(values: Mapping[str, Any]) -> Flask:
    """The application that serves the class of the settings ``values``.

    Where it cannot serve, it says why and exits.
    """
    studio = Studio.read(values)
    weights.safe()  # the class is trusted, what it loads is not
    try:
        own = Own(
            values["MODEL_CLASS"],
            Path(values["MODEL_ROOT"]),
            Path(values["LOCAL_FILES_DOCUMENT_ROOT"]),
            studio,
            Web.read(values),
        )
    except ModelClassError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(http.WORKER_BOOT_ERROR)
    if not values["BASIC_AUTH_PASS"]:
        log.warning("BASIC_AUTH_PASS is empty: whoever reaches the port may use the model")
    user, password = values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"]
    said = Remembered(studio, parameters)
    return build(own, said, user, password, http.Places(values["THREADS"]))


def build(
    own: Own,
    said: Remembered[dict[str, Any]],
    user: str,
    password: str,
    places: http.Places,
) -> Flask:
    """The application around its parts; see `ls_yolo.app.build`. Names in the URL, ``/m/a+b``,
    count as ``extra_params`` ``{"0": "a", "1": "b"}``."""
    app = http.shell(user, password, places)
    routes = Blueprint("backend", __name__)

    def call(body: Mapping[str, Any], config: Any, models: str | None) -> Call:
        number = http._project(dict(body))
        project = "" if number is None else str(number)
        if models:
            extra = parameters(list(selection.from_url(models)))
        elif "extra_params" in body:
            extra = said.remember(number, body["extra_params"])
        else:
            extra = said.recall(number, request.host)
        return Call(project, config or None, extra)

    @routes.get("/health")
    @routes.get("/")
    def health(models: str | None = None) -> Any:
        return jsonify(status="UP", model_class=own.name)

    @routes.get("/livez")
    def livez(models: str | None = None) -> Any:
        return jsonify(status="alive")

    def status() -> dict[str, Any]:
        row = {"name": own.name, "state": "ready", "version": own.initial, "error": ""}
        return {"models": [row], "error": ""}

    @routes.get("/readyz")
    def readyz(models: str | None = None) -> Any:
        answer: dict[str, Any] = {"status": "ready", "loaded": 1, "failed": 0}
        if not password or http._authorized(user, password):
            answer |= status()
        return jsonify(answer)

    @routes.post("/reload")
    def reload(models: str | None = None) -> Any:
        # A changed class is taken by a new start, which `make up` makes.
        return jsonify(status() | {"config": ""})

    @routes.post("/setup")
    def setup(models: str | None = None) -> Any:
        body = {"extra_params": None, **http._body()}
        return jsonify(model_version=own.version(call(body, http._text(body, "schema"), models)))

    @routes.post("/predict")
    def predict(models: str | None = None) -> Any:
        body = http._body()
        tasks, params = body.get("tasks"), body.get("params") or {}
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise BadRequest("tasks: expected a list of tasks, each a JSON object")
        if not isinstance(params, dict):
            raise BadRequest("params: expected a JSON object")
        logs.note(tasks=len(tasks))
        gone = http._gone(request.environ.get("gunicorn.socket"))
        asked = call(body, http._text(body, "label_config"), models)
        return jsonify(results=own.predict(tasks, asked, params, gone))

    @routes.get("/versions")
    def versions(models: str | None = None) -> Any:
        return jsonify(versions=own.versions())

    @routes.post("/webhook")
    def webhook(models: str | None = None) -> Any:
        # Who has not said the password, where there is one, does not come to here.
        body = http._body()
        event, project = str(body.get("action", "")), body.get("project")
        if event not in own.events:
            return jsonify(status="ignored")
        if not own.trains:
            return jsonify(error=f"training is not offered: {own.name} has no fit()"), 501
        if not isinstance(project, dict):
            raise BadRequest("project: expected a JSON object with id and label_config")
        data = {key: value for key, value in body.items() if key != "action"}
        asked = call({"project": project.get("id")}, project.get("label_config"), models)
        own.train(event, data, asked)
        return jsonify(status="ok", result="fit() runs in the background"), 201

    app.register_blueprint(routes)
    app.register_blueprint(routes, url_prefix="/m/<models>", name="chosen")
    return app
