"""What bulk work did, for people and for machines: counts, failures, histograms, a contact sheet.

A report takes the same memory however many tasks there are.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import queue
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2

from ls_yolo import files
from ls_yolo.jobs import fields
from ls_yolo.jobs.fields import Region
from ls_yolo.results import Image
from ls_yolo.serving import debug_plot

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the JSON: raised where what read it before would misread it."""
BINS = 20
"""Of a histogram of scores from 0 to 1."""
SAMPLE = 48
"""Tasks on the contact sheet at most."""
SIDE = 420
"""The longer side of a picture on it at most, in pixels: 48 of them take one or two megabytes."""
MOST_LABELS = 1000
"""Labels that are counted one by one; labels are what a task's answer says, so anything at all."""
MOST_REASONS = 100
"""Groups of failures that are told apart."""
NAMED = 20
"""Failed tasks that each group names."""
LONGEST = 500
"""Letters of a reason at most."""
PICTURE_SECONDS = 10.0
"""How long the pictures that are still to be fetched are waited for at the end."""
OTHER = "other reasons"
"""The group of failures that came once there were `MOST_REASONS`."""
SHOWN_LABELS = 40
"""Labels in the page at most, the most frequent ones; the JSON has all."""

MakeImage = Callable[[], Image | None]
"""Reads an image; None where it is unavailable."""


class ReportError(Exception):
    """A report cannot be written or read; the message says what was found, expected, and what to
    do."""


@dataclass(frozen=True)
class Sampled:
    """A task on the contact sheet.

    url: where its page is, or nothing. score: 0 to 1. labels: how many regions each label has.
    picture: a JPEG of its image with the regions on it; empty where there is none.
    """

    task: int
    url: str
    score: float | None
    labels: Mapping[str, int]
    picture: bytes = b""

    def row(self, pictures: bool) -> dict[str, Any]:
        """As JSON, with or without the picture."""
        found: dict[str, Any] = {"task": self.task, "url": self.url, "score": self.score}
        found["labels"] = dict(self.labels)
        return found | ({"jpeg": base64.b64encode(self.picture).decode()} if pictures else {})

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Sampled:
        """What `row` has made."""
        data = base64.b64decode(row.get("jpeg", ""))
        score = None if row["score"] is None else float(row["score"])
        labels = {str(name): int(count) for name, count in row["labels"].items()}
        return cls(int(row["task"]), str(row["url"]), score, labels, data)


@dataclass
class Failures:
    """Tasks that failed for the same reason.

    count: how many. tasks: the first of them, each with its own words.
    """

    count: int
    tasks: list[tuple[int, str]]


class Report:
    """What is known of a run so far; any thread may add to it.

    title: of the project. versions: that answered. present: tasks that had a good prediction before
    the run. seconds: how long the run took. parts: of how many runs it tells.
    """

    def __init__(self, title: str, version: str, rng: random.Random | None = None) -> None:
        self.title = title
        self.versions = [version] if version else []
        self.present = 0
        self.seconds = 0.0
        self.parts = 1
        self.done = 0
        self.failed = 0
        self.empty = 0
        self.regions = 0
        self.labels: Counter[str] = Counter()
        self.scores = [0] * BINS
        self.confidences = [0] * BINS
        self.failures: dict[str, Failures] = {}
        self._sample: dict[int, Sampled] = {}
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._todo: queue.Queue[Callable[[], None]] = queue.Queue()
        self._drawing: threading.Thread | None = None

    def add(
        self,
        task: int,
        regions: Sequence[Region],
        score: float | None,
        image: Image | MakeImage | None = None,
        url: str = "",
    ) -> None:
        """Counts a task that was predicted.

        Args:
            task: its number.
            regions: of its prediction.
            score: of its prediction, 0 to 1.
            image: that of the task, or what reads it: asked only of the few tasks that get on the
                contact sheet, some 500 of a million, in a thread of its own, since it may have to
                be fetched.
            url: of the task's page in Label Studio.
        """
        names = Counter(label for region in regions for label in fields.labels(region))
        with self._lock:
            self.done += 1
            self.regions += len(regions)
            self.empty += not regions
            for label, count in names.items():
                known = label in self.labels or len(self.labels) < MOST_LABELS
                self.labels[label if known else "…"] += count
            _count(self.scores, score)
            for region in regions:
                _count(self.confidences, region.get("score"))
            place = self._place()
        if place is None:
            return
        made = Sampled(task, url, score, names)
        with self._lock:
            self._sample[place] = made

        def draw() -> None:
            if self._sample[place] is not made:
                return  # another one has its place by now
            picture = _picture(task, regions, image)
            with self._lock:
                if self._sample[place] is made:
                    self._sample[place] = replace(made, picture=picture)

        if callable(image):
            self._later(draw)
        else:
            draw()

    def _later(self, draw: Callable[[], None]) -> None:
        """Has it done while the run goes on. The thread is no reason for a process to stay."""
        with self._lock:
            self._todo.put(draw)
            if self._drawing is None:
                self._drawing = threading.Thread(target=self._draw, name="pictures", daemon=True)
                self._drawing.start()

    def _draw(self) -> None:
        while True:
            draw = self._todo.get()
            try:
                draw()
            finally:
                self._todo.task_done()

    def settle(self, seconds: float | None = None) -> None:
        """Returns when all pictures are there, or after ``seconds``, `PICTURE_SECONDS` unless they
        are given: the report does without."""
        done = self._todo.all_tasks_done
        with done:
            done.wait_for(lambda: not self._todo.unfinished_tasks, seconds or PICTURE_SECONDS)

    @property
    def sample(self) -> list[Sampled]:
        """The tasks on the contact sheet, by number."""
        return sorted(self._sample.values(), key=lambda one: one.task)

    def _place(self) -> int | None:
        """Where on the contact sheet the task counted last belongs, if it does, so that each task
        is as likely there as any other: J. S. Vitter, "Random Sampling with a Reservoir" (1985),
        algorithm R."""
        place = self.done - 1 if self.done <= SAMPLE else self._rng.randrange(self.done)
        return place if place < SAMPLE else None

    def fail(self, task: int, reason: str) -> None:
        """Counts a task that could not be predicted, and why."""
        reason = reason[:LONGEST]
        with self._lock:
            self.failed += 1
            self._group(_kind(reason), 1, [(task, reason)])

    def _group(self, kind: str, count: int, tasks: Sequence[tuple[int, str]]) -> None:
        """Counts that many failures of a kind, of which ``tasks`` are some."""
        if kind not in self.failures and len(self.failures) >= MOST_REASONS:
            kind = OTHER
        group = self.failures.setdefault(kind, Failures(0, []))
        group.count += count
        group.tasks += tasks[: NAMED - len(group.tasks)]

    def json(self, pictures: bool = True) -> str:
        """The report as JSON; see `write`. With ``pictures``, `merge` can show them again."""
        self.settle()
        with self._lock:
            return json.dumps(self._document(pictures), indent=1)

    def _document(self, pictures: bool) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "title": self.title,
            "versions": self.versions,
            "parts": self.parts,
            "seconds": round(self.seconds, 3),
            "tasks": {
                "predicted": self.done,
                "failed": self.failed,
                "present": self.present,
                "empty": self.empty,
            },
            "regions": self.regions,
            "labels": dict(self.labels.most_common()),
            "scores": self.scores,
            "confidences": self.confidences,
            "failures": [
                {
                    "reason": reason,
                    "count": group.count,
                    "tasks": [{"task": task, "reason": own} for task, own in group.tasks],
                }
                for reason, group in self._groups()
            ],
            "sample": [one.row(pictures) for one in self.sample],
        }

    def _groups(self) -> list[tuple[str, Failures]]:
        return sorted(self.failures.items(), key=lambda item: -item[1].count)

    def html(self) -> str:
        """The report as one page, which needs nothing else."""
        self.settle()
        with self._lock:
            return _TEMPLATE.render(
                report=self,
                groups=self._groups(),
                labels=self.labels.most_common(SHOWN_LABELS),
                others=max(0, len(self.labels) - SHOWN_LABELS),
            )

    def write(self, target: str | Path) -> None:
        """Writes the report, each file whole or not at all.

        Args:
            target: ``FILE.html`` for the page, and ``FILE.json`` beside it; ``FILE.json`` for the
                JSON alone; ``-`` for the JSON on standard output, without pictures.

        Raises:
            ReportError: it cannot be written.
        """
        check(target)
        if str(target) == "-":
            print(self.json(pictures=False), flush=True)
            return
        path = Path(target)
        try:
            if path.suffix == ".html":
                files.write(path, self.html().encode("utf-8", "replace"))
            files.write(path.with_suffix(".json"), self.json())
        except OSError as error:
            raise ReportError(f"report {path}: cannot be written: {error.strerror}") from None


def check(target: str | Path) -> None:
    """Looks whether a report can be written to ``target``, before a long run.

    Raises:
        ReportError: it cannot.
    """
    if str(target) == "-":
        return
    path = Path(target)
    if path.suffix not in (".html", ".json"):
        raise ReportError(
            f"report {str(target)!r}: expected a name that ends in .html or .json, or - for "
            "standard output"
        )
    if not path.parent.is_dir():
        raise ReportError(f"report {path}: found no folder {path.parent}; make it, or name another")
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        what = "it is a folder" if path.is_dir() else f"{path.parent} is not writable"
        raise ReportError(f"report {path}: cannot be written: {what}; name another")


def merge(paths: Sequence[str | Path], rng: random.Random | None = None) -> Report:
    """One report of several parts of a run, its shards: ``paths`` are their JSON files, or pages
    with the JSON beside them. The contact sheet has of each as much as it has tasks.

    Raises:
        ReportError: one cannot be read, is no report, or is of another project.
    """
    rng = rng or random.Random()
    parts = [_read(Path(path).with_suffix(".json")) for path in paths]
    if not parts:
        raise ReportError("found no report to merge, expected at least one")
    titles = list(dict.fromkeys(part.title for part in parts))
    if len(titles) > 1:
        raise ReportError(
            f"reports: found those of {' and '.join(map(repr, titles[:5]))}, expected those of one "
            "project; merge each project by itself"
        )
    whole = Report(titles[0], "", rng)
    whole.parts = sum(part.parts for part in parts)
    whole.versions = sorted({version for part in parts for version in part.versions})
    whole.seconds = max(part.seconds for part in parts)  # they ran side by side
    for part in parts:
        for name in ("present", "done", "failed", "empty", "regions"):
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
        whole.labels.update(part.labels)
        for name in ("scores", "confidences"):
            pairs = zip(getattr(whole, name), getattr(part, name), strict=True)
            setattr(whole, name, [sum(pair) for pair in pairs])
        for reason, group in part.failures.items():
            whole._group(reason, group.count, group.tasks)
    mixed = _mixed([(part.done, part.sample) for part in parts], rng)
    whole._sample = dict(enumerate(mixed))
    return whole


def _mixed(parts: Sequence[tuple[int, list[Sampled]]], rng: random.Random) -> list[Sampled]:
    """A sample of what ``parts``, each a number of tasks and a sample of them, are samples of."""
    left = [count for count, _ in parts]
    rows = [rng.sample(sample, len(sample)) for _, sample in parts]
    found: list[Sampled] = []
    while len(found) < SAMPLE and any(left):
        (part,) = rng.choices(range(len(parts)), left)
        left[part] -= 1
        if rows[part]:
            found.append(rows[part].pop())
    return found


def _read(path: Path) -> Report:
    try:
        row = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ReportError(f"report {path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ReportError(f"report {path}: found no JSON: {error}; write it anew") from None
    found = row.get("format") if isinstance(row, dict) else None
    if found != FORMAT:
        raise ReportError(
            f"report {path}: found format {found!r}, expected {FORMAT}; write it with this version"
        )
    try:
        return _report(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportError(
            f"report {path}: is damaged ({type(error).__name__}: {error}); write it anew"
        ) from None


def _report(row: Mapping[str, Any]) -> Report:
    made = Report(str(row["title"]), "")
    made.versions = [str(version) for version in row["versions"]]
    made.parts, made.seconds = int(row["parts"]), float(row["seconds"])
    tasks = row["tasks"]
    made.done, made.failed = int(tasks["predicted"]), int(tasks["failed"])
    made.present, made.empty = int(tasks["present"]), int(tasks["empty"])
    made.regions = int(row["regions"])
    made.labels.update({str(name): int(count) for name, count in row["labels"].items()})
    for name in ("scores", "confidences"):
        bins = [int(count) for count in row[name]]
        if len(bins) != BINS:
            raise ValueError(f"{name}: found {len(bins)} numbers, expected {BINS}")
        setattr(made, name, bins)
    for group in row["failures"]:
        named = [(int(one["task"]), str(one["reason"])) for one in group["tasks"]]
        made.failures[str(group["reason"])] = Failures(int(group["count"]), named)
    made._sample = dict(enumerate(map(Sampled.read, row["sample"])))
    return made


def _count(bins: list[int], score: object) -> None:
    """Counts ``score`` in ``bins``, if it is a number."""
    if isinstance(score, int | float) and score == score:
        bins[min(max(int(score * len(bins)), 0), len(bins) - 1)] += 1


_VARIABLE = re.compile(r"""'[^']*'|"[^"]*"|[^\s'":]*/[^\s'":]*|\d+(\.\d+)?""")
"""What differs from task to task in a reason: quoted, an address or a path, a number."""


def _kind(reason: str) -> str:
    """``reason`` without what differs from task to task, for tasks to be grouped by."""
    return re.sub(r"(…[\s:]*)+…", "…", _VARIABLE.sub("…", reason)).strip() or "no reason given"


def _picture(task: int, regions: Sequence[Region], image: Image | MakeImage | None) -> bytes:
    """A small JPEG with the ``regions`` on it, or nothing."""
    try:
        pixels = image() if callable(image) else image
        if pixels is None:
            return b""
        # The page names them: OpenCV has no letters but those of ASCII.
        return debug_plot.picture(pixels, debug_plot.rows(regions), SIDE, named=False)
    except Exception as error:  # a picture is no reason for a run of hours to end
        log.warning("report: no picture of task %s: %s: %s", task, type(error).__name__, error)
        return b""


def _colour(label: str) -> str:
    """The colour of ``label`` in pictures, for CSS and SVG."""
    blue, green, red = debug_plot.colour_of(label)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _link(url: str) -> str:
    """``url`` if it is one of the web: anything else, such as javascript:, is no link."""
    return url if re.match(r"https?://", url, re.IGNORECASE) else ""


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, such as ``1 h 02 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


_JINJA = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_JINJA.filters |= {
    "base64": lambda data: base64.b64encode(data).decode(),
    "colour": _colour,
    "duration": _duration,
    "link": _link,
    "number": lambda value: f"{value:,}",
}
_TEMPLATE = _JINJA.get_template("report.html")
