"""Bulk work under way, as its runs report it."""

from __future__ import annotations

import pytest

REPORT = {
    "project": 3,
    "title": "Ships",
    "version": "ship@0123456789ab",
    "done": 250,
    "total": 1000,
    "failed": 50,
    "rate": 35.0,
    "shard": "1/4",
    "host": "node-a",
}


def jobs(client):
    return client.get("/jobs").json["jobs"]


def test_what_a_run_reports_is_told(client, board):
    assert client.post("/jobs", json=REPORT).json == {"status": "ok"}
    (job,) = jobs(client)
    assert job == REPORT | {"state": "running", "silent": 0.0}
    (kept,) = board.jobs.all()
    assert kept.left == 20.0


def test_a_later_report_takes_the_place_of_an_earlier_one_of_the_same_run(client):
    for done in (1, 2, 3):
        client.post("/jobs", json=REPORT | {"done": done})
    assert [job["done"] for job in jobs(client)] == [3]


@pytest.mark.parametrize(
    "other", [{"project": 4}, {"version": "ship@2"}, {"shard": "2/4"}, {"host": "node-b"}]
)
def test_runs_of_another_project_version_shard_or_host_stand_beside_it(client, other):
    client.post("/jobs", json=REPORT)
    client.post("/jobs", json=REPORT | other)
    assert len(jobs(client)) == 2


def test_shards_are_in_the_order_of_their_numbers(client):
    for number in (10, 2, 0):
        client.post("/jobs", json=REPORT | {"shard": f"{number}/11"})
    assert [job["shard"] for job in jobs(client)] == ["0/11", "2/11", "10/11"]


def test_a_run_is_forgotten_ten_minutes_after_its_last_report(client, clock):
    client.post("/jobs", json=REPORT)
    clock.now += 599
    client.post("/jobs", json=REPORT)
    clock.now += 600
    assert jobs(client)[0]["silent"] == 600
    clock.now += 1
    assert jobs(client) == []


def test_a_run_that_says_nothing_for_a_minute_is_shown_as_silent(client, board, clock):
    client.post("/jobs", json=REPORT)
    client.post("/jobs", json=REPORT | {"shard": "2/4", "state": "done"})
    clock.now += 60
    assert not any(job.lost for job in board.jobs.all())
    clock.now += 1
    assert [job.lost for job in board.jobs.all()] == [True, False]


def test_no_more_than_two_hundred_runs_are_kept_and_the_silent_go_first(client):
    for number in range(205):
        client.post("/jobs", json=REPORT | {"project": number})
    found = [job["project"] for job in jobs(client)]
    assert found == list(range(5, 205))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"done": -1}, "done: -1 is less than the minimum of 0"),
        ({"done": "many"}, "done: 'many' is not of type 'integer'"),
        ({"rate": float("nan")}, "rate: found NaN"),
        ({"rate": float("inf")}, "rate: inf is greater"),
        ({"shard": "one"}, "shard: 'one' does not match"),
        ({"state": "lost"}, "state: 'lost' is not one of"),
        ({"title": "x" * 201}, "is too long"),
    ],
)
def test_a_report_of_another_form_is_refused_and_says_where(client, change, says):
    answer = client.post("/jobs", json=REPORT | change)
    assert answer.status_code == 400
    assert says in answer.json["error"]
    assert jobs(client) == []


@pytest.mark.parametrize("missing", ["project", "version", "done", "total"])
def test_a_report_without_what_it_needs_is_refused(client, missing):
    body = {name: value for name, value in REPORT.items() if name != missing}
    answer = client.post("/jobs", json=body)
    assert (answer.status_code, f"'{missing}' is a required" in answer.text) == (400, True)


def test_who_knows_no_password_reports_nothing(make):
    client = make("user", "password")
    assert client.post("/jobs", json=REPORT).status_code == 401
    assert client.get("/jobs").status_code == 401
