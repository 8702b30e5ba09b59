"""What a report of bulk work says, and that it takes no more memory as tasks come."""

from __future__ import annotations

import base64
import json
import random
import re
import threading
import time
import tracemalloc
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ls_yolo.jobs import report
from ls_yolo.jobs.report import Report, ReportError, check, merge

GREY = np.full((300, 400, 3), 128, np.uint8)


def box(label="person", score=0.9):
    place = {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0}
    return {
        "type": "rectanglelabels",
        "original_width": 400,
        "original_height": 300,
        "score": score,
        "value": {**place, "rectanglelabels": [label]},
    }


def made(seed=0, title="Ships"):
    return Report(title, "ships@0123456789ab", random.Random(seed))


def document(one, **options):
    return json.loads(one.json(**options))


class Tags(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_tasks_labels_and_scores_are_counted():
    one = made()
    one.add(1, [box(), box("船员", 0.42)], 0.62)
    one.add(2, [], 1.0)
    one.add(3, [{"type": "number", "value": {"number": 3}}], None)
    one.fail(4, "gone")
    one.present, one.seconds = 5, 2.0
    found = document(one)
    assert found["tasks"] == {"predicted": 3, "failed": 1, "present": 5, "empty": 1}
    assert found["regions"] == 3
    assert found["labels"] == {"person": 1, "船员": 1}
    assert {n: c for n, c in enumerate(found["scores"]) if c} == {12: 1, 19: 1}
    assert {n: c for n, c in enumerate(found["confidences"]) if c} == {8: 1, 18: 1}
    text = " ".join(" ".join(Tags(one.html()).text).split())
    for words in ("predicted 3", "failed 1", "prediction before 5", "船员 1", "2.0 tasks a second"):
        assert words in text


def test_failures_are_grouped_by_their_reason_and_the_first_tasks_of_each_are_named():
    one = made()
    for task in range(30):
        one.fail(task, f"/datasets/ship/{task:04}.jpg: the file is empty")
    one.fail(98, "data.image: found None, expected an address")
    one.fail(99, "")
    first, *others = document(one)["failures"]
    assert (first["reason"], first["count"]) == ("…: the file is empty", 30)
    assert [row["task"] for row in first["tasks"]] == list(range(report.NAMED))
    assert first["tasks"][7]["reason"] == "/datasets/ship/0007.jpg: the file is empty"
    assert [row["reason"] for row in others] == [
        "data.image: found None, expected an address",
        "no reason given",
    ]
    assert "and 10 more" in one.html()


def test_a_picture_has_the_regions_on_it_and_is_small():
    one = made()
    one.add(1, [box()], 0.5, np.full((1500, 2000, 3), 128, np.uint8))
    one.add(2, [box()], 0.5, lambda: GREY)
    one.add(3, [box()], 0.5)
    page = Tags(one.html())
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    for source in sources:
        data = base64.b64decode(source.partition("base64,")[2])
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        height, width = picture.shape[:2]
        assert max(height, width) <= report.SIDE
        assert abs(int(picture[height * 3 // 4, width // 2].max()) - 128) > 50  # the lower edge
        assert abs(int(picture[height * 7 // 8, width // 2].max()) - 128) < 20  # below it
    assert len(sources) == 2
    assert "no picture" in "".join(page.text)


def test_an_image_that_cannot_be_read_or_drawn_ends_nothing_and_is_logged(caplog):
    def broken():
        raise OSError("the disk is gone")

    one = made()
    one.add(1, [box()], 0.5, broken)
    one.add(2, [{"type": "rectanglelabels", "value": {}}], 0.5, GREY)
    one.add(3, [box()], 0.5, lambda: None)
    assert [row["jpeg"] for row in document(one)["sample"]] == ["", "", ""]
    assert "no picture of task 1: OSError: the disk is gone" in caplog.text
    assert "no picture of task 2: KeyError" in caplog.text


EVIL = """</script><img src=x onerror="alert(1)">' " & <b>{{ 7*7 }}"""


def test_what_people_write_is_text_and_no_markup_and_nothing_comes_from_outside(tmp_path):
    one = Report(EVIL, EVIL)
    one.add(1, [box(EVIL)], 0.5, GREY, "javascript:alert(1)")
    one.add(2, [box(EVIL)], 0.5, GREY, 'https://studio/projects/1/data?task=2&x="><script>')
    one.fail(3, EVIL)
    page = Tags(one.html())
    used = {tag for tag, _ in page.tags}
    assert not used & {"script", "link", "b-", "iframe", "object"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert len(sources) == 2 and all(one.startswith("data:image/jpeg;base64,") for one in sources)
    links = [attributes["href"] for _, attributes in page.tags if "href" in attributes]
    assert links == ['https://studio/projects/1/data?task=2&x="><script>']
    (policy,) = (
        attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv")
    )
    assert policy.startswith("default-src 'none'")
    assert "".join(page.text).count(EVIL) >= 5  # title, heading, version, label, sample, reason
    assert "url(" not in one.html()


@settings(max_examples=30)
@given(st.text(st.characters()), st.text(st.characters()), st.text(st.characters()))
def test_any_words_can_be_written_and_read_back(tmp_path_factory, title, label, reason):
    path = tmp_path_factory.mktemp("report") / "r.html"
    one = Report(title, "v")
    one.add(1, [box(label)], 0.5)
    one.fail(2, reason)
    one.write(path)
    assert document(merge([path])) == document(one)


def test_every_task_is_as_likely_on_the_contact_sheet():
    hits = np.zeros(200)
    for seed in range(100):
        one = made(seed)
        for task in range(200):
            one.add(task, [], 1.0)
        assert len(one.sample) == report.SAMPLE
        for row in one.sample:
            hits[row.task] += 1
    wanted = 100 * report.SAMPLE / 200  # 24, with a deviation of 4.3
    assert abs(hits - wanted).max() < 5 * 4.3
    assert abs(hits[:100].mean() - hits[100:].mean()) < 3


def test_only_images_of_the_contact_sheet_are_asked_for():
    asked = []
    one = made()
    for task in range(5000):
        one.add(task, [], 1.0, lambda task=task: asked.append(task))
    one.settle()
    # 48 * (1 + ln(5000 / 48)) at most are expected; not those whose place another one has by then.
    assert report.SAMPLE <= len(asked) < 350


def test_a_picture_that_is_slow_holds_up_neither_the_run_nor_its_end(monkeypatch):
    monkeypatch.setattr(report, "PICTURE_SECONDS", 0.3)
    one, hangs = made(), threading.Event()
    began = time.monotonic()
    one.add(1, [box()], 0.5, lambda: hangs.wait(20) and GREY)
    one.add(2, [box()], 0.5, lambda: GREY)
    assert [row["jpeg"] for row in document(one)["sample"]] == ["", ""]
    assert time.monotonic() - began < 5
    hangs.set()
    one.settle(20)
    assert all(row["jpeg"] for row in document(one)["sample"])


def test_memory_stays_the_same_as_tasks_come():
    one = made()

    def work(start):
        for task in range(start, start + 2000):
            one.add(task, [box(f"label {task}", 0.5)], 0.5, lambda: GREY, f"http://studio/{task}")
            one.fail(task, f"reason {chr(0x4E00 + task % 9000)}: {task}")

    work(0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work(2000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 1_000_000  # pictures that take others' places
    found = document(one)
    assert len(found["labels"]) == report.MOST_LABELS + 1
    assert sum(found["labels"].values()) == 4000
    assert len(found["failures"]) == report.MOST_REASONS + 1
    assert sum(group["count"] for group in found["failures"]) == 4000


def test_threads_add_side_by_side_and_nothing_is_lost():
    one = made()

    def work(start):
        for task in range(start, start + 500):
            one.add(task, [box()], 0.5, lambda: GREY)
            one.fail(task, "gone")

    threads = [threading.Thread(target=work, args=(500 * part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = document(one)
    assert found["tasks"] == {"predicted": 4000, "failed": 4000, "present": 0, "empty": 0}
    assert found["labels"] == {"person": 4000}
    assert len(found["sample"]) == report.SAMPLE
    assert all(row["jpeg"] for row in found["sample"])


def test_a_page_has_the_numbers_beside_it_and_json_stands_alone(tmp_path, capsys):
    one = made()
    one.add(1, [box()], 0.5, GREY)
    one.write(tmp_path / "a.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.json"]
    one.write(str(tmp_path / "b.json"))
    assert not (tmp_path / "b.html").exists()
    assert json.loads((tmp_path / "b.json").read_text()) == document(one)
    one.write("-")
    assert json.loads(capsys.readouterr().out) == document(one, pictures=False)
    assert "jpeg" not in document(one, pictures=False)["sample"][0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("report.pdf", "expected a name that ends in .html or .json"),
        ("report", "expected a name that ends in .html or .json"),
        ("gone/report.html", "found no folder"),
        ("folder.html", "it is a folder"),
    ],
)
def test_where_no_report_can_be_is_said_before_the_work(tmp_path, name, words):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ReportError, match=words):
        check(tmp_path / name)
    with pytest.raises(ReportError, match=words):
        made().write(tmp_path / name)
    check("-")
    check(tmp_path / "report.html")


def shards(folder, sizes):
    for part, size in enumerate(sizes):
        one = made(part)
        one.seconds, one.present = 10.0 + part, part
        for task in range(size):
            one.add(1000 * part + task, [box()], 0.5, GREY if task < 3 else None)
            one.fail(1000 * part + task, f"/a/{task}.jpg: gone")
        one.write(folder / f"{part}.html")
        yield folder / f"{part}.html"


def test_reports_of_shards_become_one(tmp_path):
    whole = merge(list(shards(tmp_path, [300, 100, 0])))
    found = document(whole)
    assert found["tasks"] == {"predicted": 400, "failed": 400, "present": 3, "empty": 0}
    assert (found["parts"], found["seconds"]) == (3, 12.0)
    assert found["versions"] == ["ships@0123456789ab"]
    assert found["labels"] == {"person": 400}
    (group,) = found["failures"]
    assert (group["count"], len(group["tasks"])) == (400, report.NAMED)
    assert "3 parts" in whole.html()
    whole.write(tmp_path / "whole.html")
    assert document(merge([tmp_path / "whole.html"])) == found


def test_a_merged_contact_sheet_has_of_each_part_as_much_as_it_has_tasks(tmp_path):
    paths = list(shards(tmp_path, [300, 100]))
    shares = [
        sum(row.task < 1000 for row in merge(paths, random.Random(seed)).sample) / report.SAMPLE
        for seed in range(100)
    ]
    assert abs(np.mean(shares) - 0.75) < 0.03
    small = merge(list(shards(tmp_path, [5, 3])))
    assert sorted(row.task for row in small.sample) == [0, 1, 2, 3, 4, 1000, 1001, 1002]


def test_what_is_no_report_of_this_project_is_refused_by_name(tmp_path):
    made(title="Ships").write(tmp_path / "a.json")
    made(title="Quays").write(tmp_path / "b.json")
    with pytest.raises(ReportError, match="those of 'Ships' and 'Quays', expected those of one"):
        merge([tmp_path / "a.json", tmp_path / "b.json"])
    with pytest.raises(ReportError, match="at least one"):
        merge([])
    with pytest.raises(ReportError, match=r"gone\.json: cannot be read"):
        merge([tmp_path / "gone.html"])
    for text, words in [
        ("{", "found no JSON"),
        ("[]", "found format None, expected 1"),
        ('{"format": 2}', "found format 2, expected 1"),
        ('{"format": 1}', "is damaged"),
    ]:
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(ReportError, match=re.escape(words)):
            merge([tmp_path / "c.json"])
    row = json.loads((tmp_path / "a.json").read_text())
    row["scores"] = [1, 2]
    (tmp_path / "c.json").write_text(json.dumps(row))
    with pytest.raises(ReportError, match="found 2 numbers, expected 20"):
        merge([tmp_path / "c.json"])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (59.4, "59.4 s"), (61, "1 min 01 s"), (3720, "1 h 02 min")],
)
def test_how_long_it_took_is_said_in_fitting_units(seconds, expected):
    assert report._duration(seconds) == expected
