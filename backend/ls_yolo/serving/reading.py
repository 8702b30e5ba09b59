"""A task's images as pixels: fetched, and decoded a few at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ls_yolo import metrics
from ls_yolo.images import decode, limits, source
from ls_yolo.images.decode import Header
from ls_yolo.images.web import Web
from ls_yolo.results import Image


@dataclass(frozen=True)
class Fetched:
    """An image's file. task: the id of the task that it is of, for the log."""

    data: bytes
    header: Header
    task: object


class ImageReader:
    """Reads the images that tasks name.

    root: the folder whose files Label Studio serves.
    studio: fetches what only Label Studio has; None: that is refused.
    studio_url, public_urls: where the backend finds Label Studio, and where people do.
    web: fetches http(s) addresses; None: they are refused.
    reduced: large JPEGs are decoded near the size that is needed.
    threads: images decoded at a time, from 1.
    """

    def __init__(
        self,
        root: Path,
        studio: source.Fetcher | None,
        studio_url: str,
        public_urls: Sequence[str] = (),
        web: source.WebFetcher | None = None,
        reduced: bool = False,
        threads: int = 4,
    ) -> None:
        self.threads = threads
        self._root = root
        self._studio = studio
        self._own = (studio_url, *public_urls)
        self._web = web
        self._reduced = reduced
        self._decoding = threading.BoundedSemaphore(threads)
        self._memory = limits.Memory()

    @classmethod
    def read(cls, values: Mapping[str, Any], studio: source.Fetcher | None) -> ImageReader:
        """As the settings ``values`` say."""
        public_urls = values["LABEL_STUDIO_PUBLIC_URLS"].split(",")
        return cls(
            Path(values["LOCAL_FILES_DOCUMENT_ROOT"]),
            studio,
            values["LABEL_STUDIO_URL"],
            public_urls=[url.strip() for url in public_urls if url.strip()],
            web=Web.read(values),
            reduced=values["DECODE_REDUCED"],
            threads=values["DECODE_THREADS"],
        )

    def origin(self, url: str) -> source.Origin:
        """Where the image at ``url`` comes from."""
        return source.origin(url, self._own)

    def _of(self, task: Mapping[str, Any]) -> tuple[Any, ...]:
        """Where files of ``task`` may be: what `source.read` takes after a URL."""
        known = self._root, self._studio, self._own
        return *known, task.get("id"), self._web, task.get("project")

    @contextlib.contextmanager
    def fetched(self, task: Mapping[str, Any], url: str) -> Iterator[Fetched]:
        """The file of an image of ``task``; meanwhile its pixels have their place in memory.

        Raises:
            MediaError: it cannot be had, or is no image.
            StudioError: Label Studio cannot be asked.
        """
        with limits.holding():
            with metrics.stage("fetch"):
                data = source.read(url, *self._of(task))
            with self.given(data, task.get("id", "?")) as file:
                yield file

    @contextlib.contextmanager
    def given(self, data: bytes, task: object) -> Iterator[Fetched]:
        """The file of an image that is here already, called ``task`` in the log; as `fetched`.

        Raises:
            MediaError: it is no image.
        """
        header = decode.read_header(data)
        with self._memory.taken(header.memory):
            yield Fetched(data, header, task)

    def opened(self, task: Mapping[str, Any], url: str) -> AbstractContextManager[Path]:
        """The path of the file at ``url`` of ``task``, for what is too large to be in memory.

        Raises:
            MediaError, StudioError: see `source.opened`.
        """
        return source.opened(url, *self._of(task))

    @contextlib.contextmanager
    def decoded(
        self, file: Fetched, longest: int | None, soon: bool = False
    ) -> Iterator[tuple[Image, tuple[int, int]]]:
        """The image in ``file``, and its full width and height in pixels; meanwhile it counts as
        one of those that are decoded.

        longest: the longer side, in pixels, that is enough; None: all of them are needed.
        soon: a person waits, so a large JPEG is decoded near that size, whatever the setting.

        Raises:
            MediaError: it cannot be decoded.
        """
        name = f"task {file.task}"
        with self._decoding, metrics.stage("decode"):
            if longest is not None and (soon or self._reduced):
                yield decode.decode_near(file.data, longest, file.header, name)
            else:
                image = decode.decode(file.data, file.header, name)
                yield image, (image.shape[1], image.shape[0])
