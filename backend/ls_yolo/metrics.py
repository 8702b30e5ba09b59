"""What the backend counts and times, for Prometheus. One process, so one registry.

No label has more values than there are models, endpoints, stages, outcomes or kinds of errors: a
task, a project, a URL or a user is never a label.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

Stage = Literal["fetch", "decode", "queue", "infer", "encode", "embed", "prompt"]
"""What happens to an image, in order: its bytes are read, decoded and prepared, wait for the
model, go through it, and become Label Studio's regions. For a SAM it is embedded, once, and
then prompted by each click."""

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
"""Upper bounds of the latency buckets: Label Studio itself gives up after 100 s."""

REGISTRY = CollectorRegistry()
"""All that ``/metrics`` tells; the process's own memory, files and time are in it too."""

REQUESTS = Counter(
    "ls_yolo_requests", "Requests answered.", ("endpoint", "status"), registry=REGISTRY
)
REQUEST_SECONDS = Histogram(
    "ls_yolo_request_seconds",
    "Time to answer a request.",
    ("endpoint",),
    buckets=SECONDS,
    registry=REGISTRY,
)
IMAGES = Counter(
    "ls_yolo_images", "Images that went through a model.", ("model",), registry=REGISTRY
)
STAGE = Histogram(
    "ls_yolo_stage_seconds",
    "Time an image spends in a stage; infer: time of a batch, where images go in batches.",
    ("stage",),
    buckets=SECONDS,
    registry=REGISTRY,
)
BATCH_SIZE = Histogram(
    "ls_yolo_batch_size",
    "Images in a batch, or under way as one begins.",
    ("model",),
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge(
    "ls_yolo_queue_depth", "Images that wait for a model.", ("model",), registry=REGISTRY
)
MODEL_INFO = Gauge(
    "ls_yolo_model_info",
    "1 for each version that answers.",
    ("model", "version"),
    registry=REGISTRY,
)
RELOADS = Counter(
    "ls_yolo_reloads",
    "Changes of models.yaml or weights that were taken (ok) or refused (failed).",
    ("outcome",),
    registry=REGISTRY,
)
ERRORS = Counter("ls_yolo_errors", "What failed, by kind.", ("kind",), registry=REGISTRY)


class _GpuMemory(Collector):
    """The memory of the GPUs that torch uses; asks nothing where torch has not started CUDA."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        torch: Any = sys.modules.get("torch")
        # Where a load has got half-way, the module is there and its parts are not yet.
        cuda = getattr(torch, "cuda", None)
        if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
            return
        family = GaugeMetricFamily(
            "ls_yolo_gpu_memory_bytes",
            "allocated: tensors; reserved: torch's pool; free and total: of the GPU.",
            labels=("device", "kind"),
        )
        for index in range(cuda.device_count()):
            device = f"cuda:{index}"
            free, total = cuda.mem_get_info(index)
            family.add_metric((device, "allocated"), cuda.memory_allocated(index))
            family.add_metric((device, "reserved"), cuda.memory_reserved(index))
            family.add_metric((device, "free"), free)
            family.add_metric((device, "total"), total)
        yield family


ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)
REGISTRY.register(_GpuMemory())


def stage(name: Stage) -> AbstractContextManager[Any]:
    """Times what happens inside: ``with metrics.stage("decode"): ...``; failures count too."""
    return STAGE.labels(name).time()


def kind_of(error: BaseException) -> str:
    """What ``error`` is counted under: its ``kind``, or, where it has none, the name of its
    class."""
    kind = getattr(error, "kind", None)
    return kind if isinstance(kind, str) else type(error).__name__


def count_error(error: BaseException) -> None:
    """Counts ``error`` under its `kind_of`."""
    ERRORS.labels(kind_of(error)).inc()


def set_model(model: str, version: str) -> None:
    """``version`` is what answers for ``model`` from now on."""
    forget_model(model, keep=version)
    MODEL_INFO.labels(model, version).set(1)


def forget_model(model: str, keep: str = "") -> None:
    """Takes the versions of ``model`` off, but the one to ``keep``; counters go on."""
    for metric in MODEL_INFO.collect():
        for sample in metric.samples:
            version = sample.labels["version"]
            if sample.labels["model"] == model and version != keep:
                MODEL_INFO.remove(model, version)
    if not keep:
        with suppress(KeyError):
            QUEUE_DEPTH.remove(model)
