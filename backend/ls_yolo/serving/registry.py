"""The models that answer: loaded at start or on first use, replaced when their files change."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ls_yolo import config, metrics
from ls_yolo.engines.base import EngineError, Segmenter
from ls_yolo.engines.load import EngineOptions
from ls_yolo.errors import RequestError
from ls_yolo.models.config import Fingerprint, ModelConfig, Source, Spec
from ls_yolo.models.sam import SAM
from ls_yolo.serving.batcher import Batcher, BatchOptions
from ls_yolo.serving.loading import Loaded, Loader, Model, SamModel, describe, size
from ls_yolo.text import nearest

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
"""After so long a request or a look at the files tries again what could not be loaded: what was in
the way (no memory on the GPU, say) may be gone, but trying costs seconds."""

START_TRIES = 5
"""How often weights are loaded at start that are replaced meanwhile."""
State = Literal["ready", "unloaded", "loading", "failed"]


class UnknownModel(RequestError):
    """A model that is not in models.yaml was asked for; the message names what is."""

    status = 404


class NoPredictions(RequestError):
    """A SAM was asked for predictions; the message names what has some."""

    status = 400


class ModelUnavailable(RequestError):
    """A model of models.yaml cannot be loaded; the message says why."""

    status = 503


@dataclass(frozen=True)
class Options:
    """When models are loaded and unloaded.

    lazy: on first use, instead of at start.
    idle: seconds without use after which a model is unloaded; 0: never.
    memory: bytes that the loaded models may take together; 0: no limit.
    poll: seconds between two looks at models.yaml and weights; 0: none.
    """

    lazy: bool = False
    idle: float = 0.0
    memory: int = 0
    poll: float = 2.0

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Options:
        """The options that the settings say."""
        return cls(
            lazy=values["MODEL_LOADING"] == "first_use",
            idle=values["MODEL_IDLE_SECONDS"],
            memory=values["MODEL_MEMORY_MB"] << 20,
            poll=values["MODEL_POLL_SECONDS"],
        )

    @property
    def settle(self) -> float:
        """Seconds that a file must have stayed the same before it is taken, since it may still be
        written to: about from one look to the next."""
        return 0.9 * (self.poll or 1.0)


@dataclass(eq=False)
class _Slot:
    """What is known of a model of models.yaml.

    ``model`` is None while it is unloaded. ``wanted``: whether what changes is loaded at once.
    ``taken`` is what was last acted on, ``seen`` the weights at the last look. ``reserved``: bytes
    that a model takes which is being loaded. ``told`` is the error that the log has.
    """

    spec: Spec
    wanted: bool
    entry: ModelConfig | None = None
    model: Loaded | None = None
    error: str = ""
    told: str = ""
    failed_at: float = 0.0
    reserved: int = 0
    used: float = field(default_factory=time.monotonic)
    loading: threading.Lock = field(default_factory=threading.Lock)
    taken: tuple[Spec, Fingerprint | None] | None = None
    seen: _Seen = field(default_factory=lambda: _Seen())

    def drop(self) -> bool:
        """Unloads the model unless a request has it; returns whether it did."""
        found = weakref.ref(self.model) if self.model else lambda: None
        self.model = None
        self.model = found()  # CPython frees what nobody refers to at once
        return self.model is None


class _Seen:
    """What was seen at the last looks, and since when it has been the same."""

    def __init__(self, value: object = None) -> None:
        self.value = value
        self.since = time.monotonic()

    def settled(self, value: object, seconds: float) -> bool:
        """Takes note of ``value``; returns whether it has been seen for ``seconds``."""
        if value != self.value:
            self.value, self.since = value, time.monotonic()
        return time.monotonic() - self.since >= seconds


class _Changed(EngineError):
    """Weights were replaced while they were loaded."""


class Registry:
    """The models of a models.yaml. Safe to share between threads.

    load: makes the model of an entry, warmed up.
    default: the model that answers where nothing else chooses one; empty: the first that is no SAM.
    custom: whether a weights file inside the models folder that models.yaml does not list may be
        asked for by its path.
    options, batch: when models are loaded, and how their images go together.

    Changes of the files are taken by `watch` in the background, or by `refresh`. A changed model is
    loaded and warmed up beside the old one, which answers until then, and whose requests finish on
    it. What cannot be used leaves the old one in place; `status` says why.

    Raises:
        UnknownModel: ``default`` is not in models.yaml.
        config.ConfigError: models.yaml cannot be used, or no model can be loaded; one line a fault.
    """

    def __init__(
        self,
        source: Source,
        load: Callable[[ModelConfig], Loaded],
        default: str = "",
        custom: bool = False,
        options: Options = Options(),
    ) -> None:
        self._source = source
        self._make = load
        self._default = default
        self._custom = custom
        self._options = options
        # Guards the fields of this and of slots; never held while anything is loaded or released.
        self._lock = threading.Lock()
        self._reconciling = threading.Lock()  # one look at the files at a time
        self._released: deque[Batcher | Segmenter] = deque()
        self._releasing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._slots: dict[str, _Slot] = {}
        self._by_path: dict[str, _Slot] = {}
        self._list_error = ""
        self._list_taken = source.digest()
        self._list_seen = _Seen(self._list_taken)
        self._take_list(source.specs())
        for slot in self._slots.values():
            for _ in range(START_TRIES):
                if self._take(slot, slot.spec.fingerprint()):
                    break
                time.sleep(options.settle)  # it is being replaced just now
        faults = [slot.error for slot in self._slots.values()]
        if all(faults):
            raise config.ConfigError("\n".join(faults))

    @classmethod
    def read(cls, values: Mapping[str, Any], command: bool = False) -> Registry:
        """The models that the settings ``values`` say.

        command: for a command line, which predicts and ends: a model is loaded when it is asked
            for, any file of the models folder may be (who may run it may read the files), exports
            are used where they can be kept, and changes are not taken.

        Raises:
            UnknownModel, config.ConfigError: see `Registry`.
        """
        engines, options = EngineOptions.read(values), Options.read(values)
        if command:
            options = Options(lazy=True, poll=0)
            if engines.cache is not None and not os.access(engines.cache, os.W_OK):
                engines = replace(engines, cache=None)
        return cls(
            Source.read(values),
            Loader(engines, BatchOptions.read(values)),
            values["DEFAULT_MODEL"],
            command or values["ALLOW_CUSTOM_MODEL_PATH"],
            options,
        )

    # Asking.

    @property
    def default(self) -> str:
        """The name of the model that answers where nothing else chooses one."""
        return self._default or next(iter(self.predicting(self._slots)))

    @property
    def root(self) -> Path:
        """The folder of the models' files."""
        return self._source.root

    @property
    def custom(self) -> bool:
        """Whether weights that models.yaml does not list may be asked for."""
        return self._custom

    @property
    def names(self) -> list[str]:
        """The names of models.yaml, in its order."""
        return list(self._slots)

    def get(self, name: str) -> Model:
        """The model called ``name``, loaded if it is not.

        Raises:
            UnknownModel: there is none of that name.
            NoPredictions: it is a SAM.
            ModelUnavailable: it cannot be loaded.
        """
        found = None if self.is_sam(name) else self._get(self._slot(name))
        if isinstance(found, Model):
            return found
        others = [other for other, slot in self._slots.items() if not slot.spec.sam]
        raise NoPredictions(
            f"{name!r} is a SAM, which answers what is drawn with a smart tool and predicts "
            f"nothing; expected another model: {', '.join(others) or 'models.yaml has none'}"
        )

    def sam(self, name: str) -> SamModel:
        """The SAM called ``name``, loaded if it is not.

        Raises:
            UnknownModel: there is none of that name.
            ModelUnavailable: it cannot be loaded.
        """
        found = self._get(self._slot(name)) if self.is_sam(name) else None
        if isinstance(found, SamModel):
            return found
        raise UnknownModel(f"no SAM is called {name!r}")

    def is_sam(self, name: str) -> bool:
        """Whether ``name`` is that of a SAM; not where there is no such model."""
        slot = self._slots.get(name)
        return slot is not None and slot.spec.sam

    def predicting(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` that predict: all but SAMs; all, where there is nothing else."""
        asked = list(names)
        return [name for name in asked if not self.is_sam(name)] or asked

    def check(self, name: str) -> None:
        """Returns if there is a model called ``name``, whether or not it can answer.

        Raises:
            UnknownModel: there is none of that name.
        """
        self._slot(name)

    def version(self, name: str) -> str:
        """The version of ``name``, which need not be loaded for this.

        Raises:
            UnknownModel: there is none of that name.
            ModelUnavailable: it has none, because its weights cannot be used.
        """
        slot = self._slot(name)
        with self._lock:
            entry = slot.entry
            error = slot.error
        if entry is None:
            raise ModelUnavailable(error)
        return entry.version

    def by_path(self, name: str) -> Model:
        """The model called ``name``, or, with ``custom``, the one of the weights file ``name``.

        Raises:
            UnknownModel: there is none of that name, nor such a file that may be asked for.
            ModelUnavailable: it cannot be loaded.
        """
        if not self._custom or name in self._slots:
            return self.get(name)
        root = self._source.root
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()) or path.suffix != ".pt" or not path.is_file():
            raise UnknownModel(
                f"{name!r} is neither in models.yaml nor a .pt file inside {root}; "
                f"models.yaml has: {', '.join(self._slots)}"
            )
        relative = str(path.relative_to(root.resolve()))
        with self._lock:
            slot = self._by_path.setdefault(relative, _Slot(self._source.custom(relative), False))
        found = self._get(slot)
        assert isinstance(found, Model)  # only an entry of models.yaml makes a SAM
        return found

    def __iter__(self) -> Iterator[Loaded]:
        """Those that are loaded now, in the order of models.yaml."""
        with self._lock:
            found = [slot.model for slot in self._slots.values()]
        return iter([model for model in found if model is not None])

    def status(self) -> dict[str, Any]:
        """How each model is:
        ``{"config", "error", "models": [{"name", "version", "state", "error"}]}``.

        config: SHA-256 of models.yaml as it was looked at last, in hexadecimal.
        state: ``ready`` answers, ``unloaded`` is loaded when asked for, ``loading`` is not ready
        yet, ``failed`` cannot answer. The ``error`` of a model that is ready is why a newer state
        of its files was not taken; the outer one is why models.yaml was not. A model that is loaded
        has ``task``, ``classes`` (their names), ``engine`` (what runs it, for people) and
        ``memory_mb`` too.
        """
        with self._lock:
            rows = [
                {
                    "name": name,
                    "version": slot.entry.version if slot.entry else "",
                    "state": _state(slot),
                    "error": slot.error,
                    **({"task": SAM} if slot.spec.sam else {}),  # known before it is loaded
                    **(describe(slot.model) if slot.model else {}),
                }
                for name, slot in self._slots.items()
            ]
            return {"config": self._list_taken, "error": self._list_error, "models": rows}

    @property
    def ready(self) -> bool:
        """Whether a model can answer."""
        return any(row["state"] != "failed" for row in self.status()["models"])

    def _slot(self, name: str) -> _Slot:
        slots = self._slots
        if name in slots:
            return slots[name]
        known = list(slots)
        raise UnknownModel(
            f"no model is called {name!r}{nearest(name, known)}; "
            f"models.yaml has: {', '.join(known)}"
        )

    def _get(self, slot: _Slot) -> Loaded:
        with self._lock:
            slot.used = time.monotonic()
            model = slot.model
        if model is not None:
            return model
        # Two first requests load it once; those for other models go on meanwhile.
        with slot.loading:
            with self._lock:
                model = slot.model
                waited = time.monotonic() - slot.failed_at
            if model is not None:
                return model
            if slot.error and waited < RETRY_SECONDS:
                raise ModelUnavailable(slot.error)
            for _ in range(3):
                try:
                    fingerprint = slot.spec.fingerprint()
                    return self._load(slot, slot.spec.entry(), fingerprint)
                except _Changed as error:
                    changed = error
                except Exception as error:
                    raise ModelUnavailable(self._fail(slot, error)) from error
            raise ModelUnavailable(self._fail(slot, changed))

    # Loading.

    def _load(self, slot: _Slot, entry: ModelConfig, fingerprint: Fingerprint | None) -> Loaded:
        """Loads ``entry`` and puts it in ``slot``, whose lock ``loading`` is held.

        ``fingerprint`` is that of the weights before they were hashed.
        """
        spec = slot.spec
        self._make_room(slot, entry)
        began = time.monotonic()
        try:
            model = self._make(entry)
            # The version names these very weights, so they must be what was loaded.
            if spec.fingerprint() != fingerprint:
                model.runner.release()
                raise _Changed(f"{entry.weights}: changed while it was loaded")
        except BaseException:
            with self._lock:
                slot.reserved = 0
            raise
        with self._lock:
            old = slot.model
            slot.model, slot.reserved = model, 0
            slot.entry, slot.error, slot.told = entry, "", ""
            slot.wanted = True
            slot.used = time.monotonic()
            # A request that took the old one has it still; the last of them lets it go.
            weakref.finalize(model, self._released.append, model.runner).atexit = False
        metrics.set_model(entry.name, entry.version)
        log.info(
            "loaded %s from %s in %.1f s: %s%s",
            entry.version,
            entry.weights,
            time.monotonic() - began,
            model.about,
            f", in place of {old.version}" if old else "",
        )
        return model

    def _fail(self, slot: _Slot, error: Exception) -> str:
        """Keeps why a model cannot be used; says it once."""
        known = isinstance(error, config.ConfigError | EngineError)
        name = slot.spec.name
        text = str(error) if known else f"{name}: {type(error).__name__}: {error}"
        # Each try may find another number of bytes free.
        gist = re.sub(r"[0-9.]+", "0", text)
        with self._lock:
            told, slot.told = slot.told == gist, gist
            slot.error = text
            slot.failed_at = time.monotonic()
            old = slot.model
            if old is None:
                slot.entry = None
        if old is None:
            metrics.forget_model(name)
        if not told:
            log.error(
                "%s; %s", text, f"{old.version} answers on" if old else f"{name} cannot answer"
            )
        return text

    # Unloading.

    def reap(self) -> None:
        """Releases the engines that nobody uses any longer."""
        with self._releasing:
            if not self._released:
                return
            while self._released:
                runner = self._released.popleft()
                try:
                    runner.release()
                except Exception:
                    log.exception("an engine could not be released")
            del runner
            _give_memory_back()

    def unload_idle(self) -> None:
        """Unloads what was not used for the idle time."""
        limit = time.monotonic() - self._options.idle
        with self._lock:
            for slot in self._all():
                if slot.model and slot.used <= limit and not slot.loading.locked():
                    self._unload(slot, "not used")
        self.reap()

    def _make_room(self, slot: _Slot, entry: ModelConfig) -> None:
        """Unloads the least recently used models until the memory is enough for ``entry``, and
        reserves it in ``slot``: others that load at the same time count with it."""
        if not self._options.memory:
            return
        need = size(entry)
        with self._lock:
            others = sorted((s for s in self._all() if s is not slot), key=lambda s: s.used)
            for other in others:
                if self._taken_memory() + need <= self._options.memory:
                    break
                if other.model and not other.loading.locked():
                    self._unload(other, f"room for {entry.version}")
            total = self._taken_memory() + need
            slot.reserved = need
        self.reap()  # before the new one is loaded, not some time later
        if total > self._options.memory:
            log.warning(
                "%s: about %d MB with what is in use, more than MODEL_MEMORY_MB=%d; loaded all "
                "the same",
                entry.version,
                total >> 20,
                self._options.memory >> 20,
            )

    def _fits(self, entry: ModelConfig) -> bool:
        memory = self._options.memory
        return not memory or self._taken_memory() + size(entry) <= memory

    def _taken_memory(self) -> int:
        return sum(slot.reserved + (slot.model.size if slot.model else 0) for slot in self._all())

    def _unload(self, slot: _Slot, why: str) -> None:
        if slot.drop():
            slot.wanted = False
            log.info("unloaded %s: %s", slot.entry.version if slot.entry else slot.spec.name, why)

    def _all(self) -> list[_Slot]:
        return [*self._slots.values(), *self._by_path.values()]

    # Changes of the files.

    def watch(self) -> None:
        """Looks after the models in a thread of its own, until `close`."""
        # What the last request of a replaced model leaves is released in a second at the latest.
        step = min(s for s in (self._options.poll, self._options.idle / 4, 1.0) if s > 0)
        self._thread = threading.Thread(
            target=self._watch, args=(step,), name="models", daemon=True
        )
        self._thread.start()

    def _watch(self, step: float) -> None:
        due = time.monotonic() + self._options.poll
        while not self._stop.wait(step):
            try:
                if self._options.poll and time.monotonic() >= due:
                    self.reconcile()
                    due = time.monotonic() + self._options.poll
                if self._options.idle:
                    self.unload_idle()
                self.reap()
            except Exception:  # nobody else would notice that changes are not taken any longer
                log.exception("models could not be looked after; trying again")

    def close(self) -> None:
        """Ends the thread and releases every model once its users are done."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        with self._lock:
            for slot in self._all():
                slot.model = None
        self.reap()

    def refresh(self, timeout: float) -> dict[str, Any]:
        """Takes the files as they are now, what failed before too; returns `status` once that is
        done.

        A file that is being written is waited for, ``timeout`` seconds at most; its model then has
        an error.
        """
        began = time.monotonic()
        while not self.reconcile(began):
            if time.monotonic() > began + timeout:
                status = self.status()
                status["error"] = status["error"] or (
                    f"models.yaml or weights were still changing after {timeout:g} s; "
                    "try again when they are copied"
                )
                return status
            time.sleep(min(self._options.settle / 4, 1.0))
        return self.status()

    def reconcile(self, failed_before: float | None = None) -> bool:
        """Looks at the files once and takes what has changed; returns whether nothing waits.

        What has changed only just may still be written to, so it waits for a later look. What
        failed is tried again, changed or not, if that was before ``failed_before``, a time of
        `time.monotonic`; None: `RETRY_SECONDS` ago.
        """
        if failed_before is None:
            failed_before = time.monotonic() - RETRY_SECONDS
        with self._reconciling:
            settled = self._reconcile_list()
            with self._lock:
                slots = self._all()
            for slot in slots:
                settled &= self._reconcile_model(slot, failed_before)
            del slots, slot  # or what was removed would not be released below
            self.reap()
            return settled

    def _reconcile_list(self) -> bool:
        digest = self._source.digest()
        settled = self._list_seen.settled(digest, self._options.settle)
        if digest == self._list_taken:
            return True
        if not settled:
            return False
        self._list_taken = digest
        try:
            self._take_list(self._source.specs())
        except (config.ConfigError, UnknownModel) as error:
            self._list_error = str(error)
            metrics.RELOADS.labels("failed").inc()
            log.error("%s; the models stay as they are", error)
        return True

    def _take_list(self, specs: Mapping[str, Spec]) -> None:
        """Takes a new models.yaml; the weights of its entries are looked at later."""
        if self._default and self._default not in specs:
            raise UnknownModel(
                f"DEFAULT_MODEL: found {self._default!r}, expected one of {', '.join(specs)}"
            )
        slots = {}
        for name, spec in specs.items():
            slot = self._slots.get(name)
            if slot is None:
                slot = _Slot(spec, wanted=not self._options.lazy)
            else:
                slot.spec = spec
            slots[name] = slot
        gone = [name for name in self._slots if name not in slots]
        with self._lock:
            self._slots = slots
            self._list_error = ""
        for name in gone:
            metrics.forget_model(name)
            log.info("%s is no longer in models.yaml", name)

    def _reconcile_model(self, slot: _Slot, failed_before: float) -> bool:
        fingerprint = slot.spec.fingerprint()
        settled = slot.seen.settled(fingerprint, self._options.settle)
        new = not slot.taken or not slot.taken[0].same(slot.spec) or slot.taken[1] != fingerprint
        again = slot.error and slot.failed_at < failed_before
        if not new and not again:
            return True
        if not settled:
            return False
        before = slot.entry.version if slot.entry else ""
        if not self._take(slot, fingerprint):
            return False
        after = slot.entry.version if slot.entry else ""
        # Each change counts once, however often it is tried.
        if (slot.error and new) or before != after:
            metrics.RELOADS.labels("failed" if slot.error else "ok").inc()
        return True

    def _take(self, slot: _Slot, fingerprint: Fingerprint | None) -> bool:
        """Makes ``slot`` what models.yaml and the weights say, as far as they can be used.

        Returns whether it is done: not where the weights were replaced meanwhile.
        """
        with slot.loading:
            slot.taken = slot.spec, fingerprint
            slot.seen.settled(fingerprint, 0)
            try:
                entry = slot.spec.entry()
                with self._lock:
                    old = slot.model
                    if old is not None and old.version == entry.version:
                        slot.error = slot.told = ""
                        return True
                    if old is None and (not slot.wanted or not self._fits(entry)):
                        slot.entry, slot.error = entry, ""
                        slot.wanted = False
                        return True
                    del old
                self._load(slot, entry, fingerprint)
            except _Changed as error:
                log.info("%s; taken as soon as it stays the same", error)
                slot.taken = None
                with self._lock:
                    if slot.model is None:
                        slot.error, slot.failed_at = str(error), time.monotonic()
                return False
            except Exception as error:
                self._fail(slot, error)
            return True


def _give_memory_back() -> None:
    """Returns to the system what engines have left; each change of weights would add to it."""
    gc.collect()  # the modules of torch refer to each other
    with contextlib.suppress(OSError, AttributeError):  # only glibc keeps so much, and has this
        ctypes.CDLL(None).malloc_trim(0)


def _state(slot: _Slot) -> State:
    if slot.model:
        return "ready"
    if slot.loading.locked():
        return "loading"
    return "failed" if slot.error else "unloaded"
