"""A prediction there and back, versions and latency, with servers of the test's own."""

from __future__ import annotations

import copy
import json
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import pytest

from ls_yolo.doctor import projects
from ls_yolo.doctor.base import exit_code
from ls_yolo.doctor.facts import Facts, ProjectFacts, Timed

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="person"/></RectangleLabels></View>"""
REGION = {"id": "a", "type": "rectanglelabels", "value": {"x": 1.5}}
USUAL = {
    "setup": "coco@2", "versions": ["coco@2"], "predict": "coco@2", "seconds": 0.0,
    "stored": {"coco@2": 1}, "missing": 0, "failed": 0, "url": "/m/coco", "waiting": "",
    "asked": [], "drops": False, "keeps": False, "error": "", "shown": "coco@2",
    "known": "coco@2", "state": "CO", "left": [], "tasks": 1,
    "refuses": "", "status": 403, "took": 0.0, "limits": {"setup": 3.0, "predict": 100.0},
}  # fmt: skip


@pytest.fixture
def look(loopback, monkeypatch):
    """Lines of a check where all is as usual but for ``faults``."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def look(check, **faults):
        now = copy.deepcopy(USUAL) | faults
        rows = {one["id"]: one for one in now["left"]}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if f"{self.command} {urlsplit(self.path).path}".startswith(now["refuses"] or "-"):
                    self.send_error(now["status"])
                    return
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
                path = urlsplit(self.path).path.rstrip("/")
                now["asked"].append(path)
                answer = getattr(self, f"{self.command.lower()}_{path.split('/')[-1]}", None)
                data = json.dumps(answer(body) if answer else self.prediction(path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_DELETE = do_GET

            def post_setup(self, body):
                time.sleep(now["seconds"])
                return {"model_version": now["setup"], "unmapped": {}, "waiting": now["waiting"]}

            def get_versions(self, body):
                if "/ls-kit/" in self.path:
                    return {"versions": [
                        {"name": name, "count": count, "failed": now["failed"], "first": "",
                         "last": ""}
                        for name, count in now["stored"].items()
                    ]}  # fmt: skip
                return {"versions": now["versions"]}

            def post_count(self, body):
                assert body["version"] == now["setup"]
                return {"total": now["tasks"], "missing": now["missing"],
                        "failed": now["failed"]}  # fmt: skip

            def post_predict(self, body):
                time.sleep(now["seconds"])
                if now["error"]:
                    return {"results": [{"result": [], "score": None, "error": now["error"],
                                         "model_version": now["predict"]}]}  # fmt: skip
                return {"results": [{"result": [REGION], "score": 0.5,
                                     "model_version": now["predict"]}]}  # fmt: skip

            def get_tasks(self, body):
                return {"tasks": [{"id": 7, "data": {"image": "/data/local-files/?d=a.jpg"}}]}

            def get_predictions(self, body):
                return list(rows.values())

            def post_predictions(self, body):
                number = max(rows, default=0) + 1
                if now["drops"]:
                    body["result"] = []
                rows[number] = body | {"id": number}
                return rows[number]

            def prediction(self, path):
                if path.endswith("/ls-kit"):
                    return {"calls": ["store"]}
                number = int(path.split("/")[-1])
                if self.command == "DELETE":
                    return rows[number] if now["keeps"] else rows.pop(number)
                return rows[number]

        url = f"http://127.0.0.1:{loopback(Handler).server_port}"
        here = "" if now["url"].startswith("http") else url
        connection = {"id": 1, "url": here + now["url"], "title": "coco@2",
                      "state": now["state"], "model_version": now["known"]}  # fmt: skip
        row = {"id": 1, "title": "ship", "label_config": CONFIG, "task_number": now["tasks"],
               "model_version": now["shown"]}  # fmt: skip
        known = {"projects": [ProjectFacts(row, [connection])],
                 "diagnosis": Timed({"limits": now["limits"]}, 0, 0, 0)}  # fmt: skip
        if now["took"]:
            known["setup 1"] = Timed({"model_version": "coco@2"}, now["took"], 0, 0)
        values = {
            "LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": "k" * 40, "BACKEND_URL": url,
            "BASIC_AUTH_USER": "u", "BASIC_AUTH_PASS": "", "LOCAL_FILES_DOCUMENT_ROOT": "/",
        }  # fmt: skip
        (found,) = [one for one in projects.CHECKS if one.name == check]
        lines = list(found.run(Facts(values, known=known)))
        look.left = rows
        return lines

    return look


@pytest.mark.parametrize(
    ("check", "faults", "code", "says"),
    [
        ("versions", {"versions": ["coco@1"]}, 2, "/setup says coco@2, and /versions coco@1"),
        ("versions", {"known": "coco@1"}, 1, "has the connection as 'coco@1'"),
        ("versions", {"stored": {"coco@1": 1}, "missing": 1}, 1,
         "0 of 1 tasks have a prediction of coco@2; others are of coco@1 (1)"),
        ("versions", {"stored": {"coco@2": 2}}, 1,
         "2 predictions of coco@2 for 1 tasks: some are there twice; ls-yolo prelabel 1"),
        ("versions", {"stored": {"coco@2": 1}, "missing": 1, "failed": 1}, 1,
         "0 of 1 tasks have a prediction of coco@2, 1 of the others failed"),
        ("versions", {"stored": {"coco@2": 1, projects.MARK: 3}}, 1, "3 predictions are left"),
        ("versions", {"refuses": "POST /api/ls-kit/projects/1/count", "status": 500}, 2,
         "stored predictions cannot be counted"),
        ("labels", {"waiting": "click an object"}, 1, "click an object"),
        ("labels", {"refuses": "POST /m/coco/setup", "status": 400}, 2, "answered 400"),
        ("connection", {"url": "http://[::1"}, 1, "it is connected to http://[::1, not to"),
        ("prediction", {"predict": "coco@1"}, 2, "/setup says coco@2, and /predict coco@1"),
        ("prediction", {"drops": True}, 2, "stored another prediction than it was given"),
        ("prediction", {"keeps": True}, 2, "prediction 1 (ls-yolo doctor) was not deleted"),
        ("prediction", {"refuses": "POST /api/predictions"}, 2, "no prediction can be stored"),
        ("prediction", {"refuses": "GET /api/predictions/1"}, 2, "1 cannot be read back"),
        ("prediction", {"refuses": "DELETE /api/predictions/1"}, 2,
         "prediction 1 (ls-yolo doctor) was not deleted: Label Studio answered 403"),
        ("prediction", {"error": "a.jpg: not found"}, 2, "task 7 cannot be predicted: a.jpg"),
        ("latency", {"seconds": 0.3, "limits": {"setup": 0.2}}, 2, "Label Studio waits 0.2 s"),
        ("latency", {"seconds": 0.3, "limits": {"predict": 0.2}}, 2, "/predict of one task took"),
        ("latency", {"took": 2.0}, 1, "/setup took 2.0 s, and Label Studio waits 3 s"),
        ("connection", {"state": "ER"}, 2, "is half made: Label Studio has it as ER"),
        ("connection", {"known": ""}, 2, "is half made: it has no version"),
        ("connection", {"shown": "other"}, 1, "it shows predictions of 'other'"),
        ("projects", {"tasks": 0}, 1, "it has no task"),
    ],
)  # fmt: skip
def test_a_fault_is_red_and_what_is_usual_is_green(look, check, faults, code, says):
    red = look(check, **faults)
    assert exit_code(red) == code, red
    assert says in " ".join(map(str, red))
    green = look(check)
    assert exit_code(green) == 0, green


CHECKS = ("labels", "versions", "prediction", "latency")


@pytest.mark.parametrize("check", CHECKS)
def test_a_project_that_is_connected_elsewhere_is_not_asked_of_this_backend(look, check):
    asked = []
    for url in ("http://elsewhere:9090", "http://[::1"):
        lines = look(check, url=url, asked=asked)
        assert (exit_code(lines), asked) == (0, []), lines


@pytest.mark.parametrize("check", CHECKS)
def test_a_connection_that_names_no_model_is_a_fault_of_that_project_alone(look, check):
    (line,) = look(check, url="/m/a++b")
    assert exit_code([line]) == 2
    assert line.finding.subject == "ship"
    assert "found an empty name" in str(line)


@pytest.mark.parametrize("check", ["versions", "prediction", "latency"])
def test_a_project_that_waits_for_a_click_is_not_predicted(look, check):
    asked = []
    lines = look(check, waiting="click an object", missing=1, asked=asked)
    assert exit_code(lines) == 0, lines
    assert not [path for path in asked if path.endswith(("predict", "predictions", "count"))]


@pytest.mark.parametrize("check", ["versions", "prediction", "latency"])
def test_what_setup_refuses_is_told_by_the_check_of_labels_alone(look, check):
    (line,) = look(check, refuses="POST /m/coco/setup", status=400)
    assert str(line).startswith(f"skip {check}, ship: not looked at: /setup refuses")


def test_a_task_that_fails_at_once_is_no_measure_of_latency(look):
    (line,) = look("latency", error="a.jpg: not found")
    assert "/setup in" in str(line) and "fit" not in str(line)


def test_a_prediction_that_cannot_be_read_back_goes_all_the_same(look):
    look("prediction", refuses="GET /api/predictions/1")
    assert look.left == {}


def test_the_prediction_of_a_doctor_that_was_stopped_goes_with_the_next_look(look):
    old = {"id": 3, "model_version": projects.MARK, "result": []}
    kept = {"id": 4, "model_version": "coco@2", "result": []}
    (line,) = look("prediction", left=[old, kept])
    assert "1 regions made, stored, read back, deleted" in str(line)
    assert list(look.left) == [4]
