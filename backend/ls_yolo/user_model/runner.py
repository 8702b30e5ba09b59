"""A ``model.py`` of the user's own: a class derived from ``LabelStudioMLBase``, served as it is.

label-studio-ml makes an instance for each request, which loads the weights each time. Here one is
made, once; what belongs to a request (project, labeling config, ``extra_params``) is looked
up where the class asks for it, so that the one instance serves every project.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import math
import posixpath
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from label_studio_sdk._extensions.label_studio_tools.core.utils import io as sdk_io

from ls_yolo import metrics
from ls_yolo.images.limits import MediaError
from ls_yolo.images.web import Web
from ls_yolo.labelstudio.client import Studio
from ls_yolo.serving.batcher import QueueFull
from ls_yolo.serving.predictor import LOOK_UP, ClientGone, PredictionError
from ls_yolo.user_model import workspace
from ls_yolo.user_model.answers import finite, plain, taken_options
from ls_yolo.user_model.files import FileSession, prune
from ls_yolo.user_model.loader import ModelClassError, find, not_installed
from ls_yolo.user_model.request import NoLabelConfig, RequestContext, during, request_scoped

log = logging.getLogger(__name__)
WAIT = 90.0
"""How long a request waits for its turn, in seconds: Label Studio itself gives up after 100."""
EVENTS = 64
"""How many events may wait for ``fit``."""
PROJECTS = 1000
"""Projects whose versions ``/versions`` tells: those that have asked last."""
WARNINGS = 100
"""Different warnings about what the class returns that are logged."""
INITIAL_VERSION = "0.0.1"


class ModelRunner:
    """One instance of the user's class, and what calls it, one call at a time.

    Args:
        spec: ``module:Class`` (MODEL_CLASS).
        root: the folder of the user's files (MODEL_ROOT); nothing is written there.
        files: the folder of the local files.
        studio: Label Studio; None without a token.
        web: fetches what ``get_local_path`` is asked for at other addresses.
        wait: how long a request waits for its turn, in seconds.
        kept: the folder that outlives a restart (MODEL_DIR), for what the class writes.

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
        kept: Path | None = None,
    ) -> None:
        try:
            work = workspace.make(root, kept)
        except OSError as error:
            raise ModelClassError(
                f"MODEL_CLASS: no folder for what the class writes: {error}; make room in "
                "MODEL_DIR, or let the backend write there"
            ) from None
        workspace.enter(work)
        self._class = find(spec, root, work)
        self.name = self._class.__name__
        self._files = files
        self._studio = studio
        self._web = web
        self._wait = wait
        self._lock = threading.Lock()
        self._instance: Any = None
        self._one_by_one = False
        self._told: set[str] = set()  # bounded by WARNINGS
        # The last to ask is last.
        self._projects: dict[str, None] = {}
        self._noting = threading.Lock()
        self._events: queue.Queue[tuple[RequestContext, str, dict[str, Any]]] = queue.Queue(EVENTS)
        self._starting = threading.Lock()
        self._trainer: threading.Thread | None = None
        self._training_since: float | None = None
        try:
            self._make(RequestContext())
        except NoLabelConfig:
            log.warning(
                "%s asks for a labeling config when it is made, so it is made with the "
                "first request that has one, which may take longer than Label Studio waits (3 s); "
                "better to ask in predict()",
                self.name,
            )

    def _make(self, request: RequestContext) -> None:
        """Makes the instance, or raises: ModelClassError, NoLabelConfig."""
        started = time.monotonic()
        with during(RequestContext(config=request.config, making=True)), self._surroundings():
            try:
                made = request_scoped(self._class)
                self._instance = made(project_id=None, label_config=request.config)
            except NoLabelConfig:
                raise
            except ModuleNotFoundError as error:
                raise not_installed(self.name, error) from None
            except Exception:
                raise ModelClassError(
                    f"MODEL_CLASS: {self.name} cannot be made:\n{traceback.format_exc()}"
                ) from None
        version = self.initial
        metrics.set_model(self.name, version)
        log.info("made %s %s in %.1f s", self.name, version, time.monotonic() - started)

    def version(self, request: RequestContext, gone: Callable[[], bool] = lambda: False) -> str:
        """``model_version`` for the project of ``request``; it never waits for a prediction.

        Raises:
            ModelClassError: the instance has to be made first, and cannot be.
            QueueFull, ClientGone: as `predict` does, where the instance has to be made first.
        """
        if self._instance is None:
            with self._turn(gone):
                if self._instance is None:
                    with contextlib.suppress(NoLabelConfig):
                        self._make(request)
        if self._instance is None:
            return INITIAL_VERSION
        if request.project:
            with self._noting:
                self._projects.pop(request.project, None)
                self._projects[request.project] = None
                if len(self._projects) > PROJECTS:
                    del self._projects[next(iter(self._projects))]
        with during(request):
            return str(self._instance.get("model_version") or INITIAL_VERSION)

    @property
    def initial(self) -> str:
        """The version that the class itself begins with."""
        return INITIAL_VERSION if self._instance is None else self.version(RequestContext())

    def versions(self) -> list[str]:
        """The versions that answer: of the `PROJECTS` projects that have asked last."""
        if self._instance is None:
            return [INITIAL_VERSION]
        with self._noting:
            projects = sorted(self._projects)
        requests = [RequestContext(), *map(RequestContext, projects)]
        return list(dict.fromkeys(map(self.version, requests)))

    def predict(
        self,
        tasks: Sequence[dict[str, Any]],
        request: RequestContext,
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
        version = self.version(request, gone)
        if len(tasks) > 1 and not self._one_by_one:
            try:
                found = self._ask(tasks, request, params, gone)
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
                found = self._ask([task], request, params, gone)
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
        request: RequestContext,
        params: Mapping[str, Any],
        gone: Callable[[], bool],
    ) -> list[Any]:
        """What ``predict`` returns, as a list."""
        with self._turn(gone), self._surroundings(), during(request):
            if self._instance is None:
                raise PredictionError(f"{self.name} is not made: no labeling config came")
            self._instance.__dict__["_running"] = request
            predict = self._instance.predict
            more = {k: v for k, v in params.items() if k not in ("self", "tasks", "context")}
            options = {"context": params.get("context", {}), **more}
            with metrics.stage("infer"):
                # A copy: it may be needed again, and classes do change their tasks.
                answer = predict(copy.deepcopy(list(tasks)), **taken_options(predict, options))
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
        kept = [region for region in regions if finite(region)]
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
        rest = {key: value for key, value in item.items() if finite(value)}
        return {**rest, "result": kept, "score": score, "model_version": own}

    def _tell_once(self, text: str) -> None:
        if text not in self._told and len(self._told) < WARNINGS:
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

    def train(self, event: str, data: dict[str, Any], request: RequestContext) -> None:
        """Has ``fit`` called in the background, after those that wait already.

        Raises:
            QueueFull: too many events wait.
        """
        try:
            self._events.put_nowait((request, event, data))
        except queue.Full:
            raise QueueFull(f"{EVENTS} events wait for fit() already; try again later") from None
        with self._starting:
            if self._trainer is None:
                # A daemon: training may take hours, and does not keep the service from stopping.
                self._trainer = threading.Thread(target=self._fit_all, name="fit", daemon=True)
                self._trainer.start()

    def _fit_all(self) -> None:
        while True:
            request, event, data = self._events.get()
            try:
                self._fit(request, event, data)
            except Exception as error:
                metrics.count_error(error)
                log.exception("project %s: fit(%r) failed", request.project, event)
            finally:
                self._events.task_done()

    def _fit(self, request: RequestContext, event: str, data: dict[str, Any]) -> None:
        before = self.version(request)
        if self._instance is None:
            raise PredictionError(f"{self.name} is not made: no labeling config came")
        with self._lock, self._surroundings(), during(request):
            self._training_since = time.monotonic()
            self._instance.__dict__["_running"] = request
            log.info("project %s: fit(%r) begins", request.project, event)
            try:
                self._instance.fit(event, data)
            finally:
                took = time.monotonic() - self._training_since
                self._training_since = None
        after = self.version(request)
        log.info(
            "project %s: fit(%r) took %.1f s; model_version %s",
            request.project, event, took, after if after == before else f"{before} -> {after}",
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
        with FileSession(self._studio, self._web) as ours, files(self._local_file), session(ours):
            yield
        prune(Path(cast(Any, sdk_io.get_cache_dir)()))

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
