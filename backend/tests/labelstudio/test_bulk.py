"""The client of the bulk calls, against a real HTTP server on loopback that fails as asked."""

from __future__ import annotations

import json
import logging
from http.server import BaseHTTPRequestHandler

import pytest

from ls_yolo.labelstudio import bulk, records
from ls_yolo.labelstudio.bulk import Calls, PlainStore, Row, StudioDown, store_of
from ls_yolo.labelstudio.client import Studio, StudioError, TokenError


class LabelStudio:
    """Answers requests with ``answers``, each once, the last for ever; ``asked`` is what came.

    An answer is a status and what is sent as JSON; None: the connection ends without one.
    """

    def __init__(self, loopback):
        self.answers = []
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                outer.asked.append((self.command, self.path, json.loads(body) if body else None))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if answer is None:
                    self.close_connection = True
                    return
                status, content = answer
                sent = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_POST = do_PATCH = do_DELETE = do_GET

        self.studio = Studio(f"http://127.0.0.1:{loopback(Handler).server_port}", "legacy")


@pytest.fixture
def label_studio(monkeypatch, loopback):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(records, "PAUSE", 0.01)
    return LabelStudio(loopback)


STORED = {"stored": 1, "present": 0, "gone": [], "refused": []}
ROW = Row(7, [], 1.0, "m@1", 3)


@pytest.mark.parametrize(
    "fault", [None, (429, {}), (500, {}), (502, {}), (503, {"detail": "x"}), (504, b"<html>")]
)
def test_a_call_is_made_again_where_label_studio_fails_for_a_moment(label_studio, fault):
    label_studio.answers = [fault, fault, (200, STORED)]
    assert Calls(label_studio.studio).store(1, [ROW]).stored == 1
    row = {"task": 7, "result": [], "score": 1.0, "version": "m@1", "cluster": 3}
    assert label_studio.asked == [("POST", "/api/ls-kit/projects/1/store/", {"rows": [row]})] * 3


def test_one_that_stays_away_is_told_apart_from_one_that_refuses(label_studio):
    label_studio.answers = [(503, {"detail": "the database has no time"})]
    with pytest.raises(StudioDown, match="the database has no time"):
        Calls(label_studio.studio).highest(1)
    assert len(label_studio.asked) == records.TRIES
    label_studio.answers = [(404, {"detail": "found no project 1"})]
    with pytest.raises(StudioError, match="answered 404: found no project 1") as caught:
        Calls(label_studio.studio).highest(1)
    assert not isinstance(caught.value, StudioDown)
    with pytest.raises(StudioDown, match="refused"):
        Calls(Studio("http://127.0.0.1:1", "legacy")).highest(1)


def test_a_token_that_is_not_taken_is_asked_once(label_studio):
    label_studio.answers = [(401, {"detail": "Invalid token."})]
    with pytest.raises(TokenError, match=r"Invalid token.*check LABEL_STUDIO_API_KEY"):
        Calls(label_studio.studio).highest(1)
    assert len(label_studio.asked) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((200, {"calls": ["store"]}), Calls),
        ((404, b"<html>not found"), PlainStore),
        ((302, b"<html>log in"), PlainStore),
        ((200, b"<html>log in"), PlainStore),
        ((200, {"calls": []}), PlainStore),
    ],
)
def test_which_calls_there_are_is_asked_once(label_studio, answer, kind):
    label_studio.answers = [answer]
    assert type(store_of(label_studio.studio)) is kind
    assert label_studio.asked == [("GET", "/api/ls-kit/", None)]


def test_a_label_studio_that_is_down_is_none_without_the_calls(label_studio):
    label_studio.answers = [(503, {})]
    with pytest.raises(StudioDown):
        store_of(label_studio.studio)


def test_an_error_that_says_nothing_of_the_calls_is_no_answer_to_whether_they_are_there(
    label_studio,
):
    label_studio.answers = [(400, b"Bad Request: host not allowed")]
    with pytest.raises(StudioError, match="answered 400: Bad Request: host"):
        store_of(label_studio.studio)


def test_a_call_that_took_long_is_not_made_again_at_once(label_studio, monkeypatch):
    monkeypatch.setattr(records, "TRY_SECONDS", 0)
    label_studio.answers = [None]
    with pytest.raises(StudioDown):
        Calls(label_studio.studio).highest(1)
    assert len(label_studio.asked) == 1


def test_of_rows_that_are_refused_as_a_whole_those_to_blame_are_found(loopback, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sizes = []

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self):
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["rows"]
            sizes.append(len(rows))
            bad = any(row["task"] in (3, 6) for row in rows)
            answer = {"detail": "too large"} if bad else {**STORED, "stored": len(rows)}
            sent = json.dumps(answer).encode()
            self.send_response(413 if bad else 200)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

    calls = Calls(Studio(f"http://127.0.0.1:{loopback(Refusing).server_port}", "legacy"))
    outcome = calls.store(1, [Row(task, [], 1.0, "m@1") for task in range(8)])
    assert outcome.stored == 6
    assert outcome.refused == ((3, "too large"), (6, "too large"))
    monkeypatch.setattr(bulk, "MOST_BYTES", 1500)
    sizes.clear()
    long = [{"text": "é" * 300}]  # 600 bytes
    calls.store(1, [Row(task, long, 1.0, "m@1") for task in (10, 11, 12)])
    assert sizes == [2, 1]


def test_rows_that_are_no_json_are_refused_and_the_others_stored(label_studio):
    label_studio.answers = [(200, STORED)]
    rows = [ROW, Row(8, [], float("nan"), "m@1"), Row(9, ["\ud800"], 1.0, "m@1")]
    outcome = Calls(label_studio.studio).store(1, rows)
    assert (outcome.stored, [task for task, _ in outcome.refused]) == (1, [8, 9])
    assert [len(body["rows"]) for _, _, body in label_studio.asked] == [1]


def test_what_is_counted_ends_at_the_highest_id_that_is_named(label_studio):
    label_studio.answers = [(200, {"total": 1, "missing": 0, "failed": 0})]
    Calls(label_studio.studio).count(1, "m@1", highest=7)
    assert label_studio.asked[0][2]["highest"] == 7


def test_a_sync_that_runs_is_waited_for_and_said_once(label_studio, monkeypatch, caplog):
    monkeypatch.setattr(bulk, "SYNC_PAUSE", 0.01)
    syncing = (409, {"detail": "storage 4: Label Studio is syncing it"})
    label_studio.answers = [syncing, syncing, (200, {"made": 2, "left": 0})]
    with caplog.at_level(logging.WARNING):
        assert Calls(label_studio.studio).make_tasks(4).made == 2
    assert [record.message for record in caplog.records] == [
        "storage 4: Label Studio is syncing it; waiting for it"
    ]
    monkeypatch.setattr(bulk, "SYNC_SECONDS", 0)
    label_studio.answers = [syncing]
    with pytest.raises(StudioError, match="storage 4: Label Studio is syncing it"):
        Calls(label_studio.studio).make_tasks(4)


def test_numbers_go_in_requests_of_a_bounded_size_and_keys_that_stay_are_named(
    label_studio, caplog
):
    label_studio.answers = [(200, {"changed": 1, "kept": ["camera"]})]
    values = {task: {"camera": 1} for task in range(bulk.MOST_NUMBERS + 1)}
    assert Calls(label_studio.studio).numbers(1, values) == 2
    sizes = [len(body["values"]) for _, _, body in label_studio.asked]
    assert sizes == [bulk.MOST_NUMBERS, 1]
    assert "data of their own under camera" in caplog.text


def test_predictions_of_the_public_api_are_sent_once_whatever_comes_of_it(label_studio):
    listed = (200, {"tasks": [{"id": 7, "predictions": []}]})
    label_studio.answers = [(200, {"label_config": "<View/>"}), listed, None]
    with pytest.raises(StudioDown, match="import/predictions"):
        PlainStore(label_studio.studio).store(1, [ROW])
    paths = [path.partition("?")[0] for _, path, _ in label_studio.asked]
    assert paths == ["/api/projects/1", "/api/tasks/", "/api/projects/1/import/predictions"]


def test_what_the_public_api_takes_and_does_not_store_is_refused(label_studio):
    config = (200, {"label_config": "<View/>"})
    listed = (200, {"tasks": [{"id": 7, "predictions": []}]})
    label_studio.answers = [config, listed, (201, {"created": 1}), listed]
    outcome = PlainStore(label_studio.studio).store(1, [ROW])
    assert outcome.stored == 0
    ((task, why),) = outcome.refused
    assert task == 7 and "it is not" in why


def test_numbers_by_the_public_api_never_go_over_a_persons_own(label_studio):
    task = {"data": {"image": "/a.jpg", "camera": 3}, "meta": {"mine": 1}}
    label_studio.answers = [(200, task), (200, {})]
    assert PlainStore(label_studio.studio).numbers(1, {7: {"camera": 9, "objects": 2}}) == 1
    _, _, sent = label_studio.asked[-1]
    assert sent == {
        "data": {"image": "/a.jpg", "camera": 3, "objects": 2},
        "meta": {"mine": 1, "ls_kit_numbers": ["objects"]},
    }
    label_studio.answers = [(200, sent), (200, {})]
    assert PlainStore(label_studio.studio).numbers(1, {7: {"camera": 9, "objects": 4}}) == 1
    assert label_studio.asked[-1][2]["data"] == {"image": "/a.jpg", "camera": 3, "objects": 4}
