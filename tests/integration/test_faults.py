"""The backend in its container, when things go wrong around it: it goes on, and says why.

It runs alone, from the product's own Compose file: there is no Label Studio that answers, and no
room on the disk for its cache.
"""

from __future__ import annotations

import base64
import json
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from PIL import Image

from conftest import IMAGES, Stack, label_config, new_stack

pytestmark = pytest.mark.docker

READ_TIMEOUT = 3
CONFIG = label_config("person", "bus")
# Serves what no image is: one that never comes, one that comes a byte at a time, one without end.
PICTURES = """
import http.server, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        piece, pause = {"/drips.jpg": (b"x", 0.2), "/endless.jpg": (b"x" * 1048576, 0)}.get(
            self.path, (b"", 1))
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(piece)
            time.sleep(pause)
server = http.server.ThreadingHTTPServer(("", 8000), Handler)
print("ready", flush=True)
server.serve_forever()
"""
WORKER = "import psutil; worker = psutil.Process(1).children()[0].children()[0]; "
PEAK = "print(open(f'/proc/{worker.pid}/status').read().partition('VmHWM:')[2].split()[0])"


@pytest.fixture(scope="module")
def alone() -> Iterator[Stack]:
    """The backend alone. Its memory is less than the images of a request here take together."""
    with new_stack(
        "compose.faults.yaml",
        ("backend",),
        BACKEND_MEMORY="2500m",
        READ_TIMEOUT=str(READ_TIMEOUT),
        HTTP_IMAGE_HOSTS="pictures",
    ) as stack:
        yield stack


@pytest.fixture
def pictures(alone: Stack) -> Iterator[str]:
    """The address of a server of bad images, on the backend's network."""
    container = alone.docker.containers.run(
        IMAGES["backend"], ["python", "-c", PICTURES], detach=True, name=f"{alone.name}-pictures",
        network=f"{alone.name}_default",
    )  # fmt: skip
    network = alone.docker.networks.get(f"{alone.name}_default")
    try:
        network.disconnect(container)
        network.connect(container, aliases=["pictures"])
        wait_for(lambda: b"ready" in container.logs())
        yield "http://pictures:8000"
    finally:
        container.remove(force=True)


def predict(stack: Stack, *urls: str) -> requests.Response:
    tasks = [{"id": i, "data": {"image": url}} for i, url in enumerate(urls, 1)]
    return stack.post("/m/coco/predict", {"tasks": tasks, "project": "", "label_config": CONFIG})


def results(answer: requests.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


def labels(result: Any) -> list[str]:
    return sorted(region["value"]["rectanglelabels"][0] for region in result["result"])


def local(name: str) -> str:
    return f"/data/local-files/?d=demo/{name}"


def metric(stack: Stack, name: str) -> float:
    text = requests.get(f"{stack.backend_url}/metrics", auth=stack.auth, timeout=10).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def ready(stack: Stack) -> Any:
    return requests.get(f"{stack.backend_url}/readyz", auth=stack.auth, timeout=10).json()


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


def inside(stack: Stack, script: str) -> str:
    code, output = stack.container("backend").exec_run(["python", "-c", script])
    assert code == 0, output.decode()
    return str(output.decode())


def test_where_the_cache_has_no_room_torch_answers_on_and_the_log_says_why(alone: Stack) -> None:
    line = wait_for(lambda: re.search(r".*torch goes on.*", alone.log("backend")))[0]
    assert "No space left on device" in line
    assert all(row["engine"].startswith("torch") for row in ready(alone)["models"])
    (result,) = results(predict(alone, local("bus.jpg")))
    assert labels(result).count("person") >= 3


def test_images_of_40_megapixels_take_no_more_memory_than_are_decoded_at_a_time(
    alone: Stack,
) -> None:
    with Image.open(alone.datasets / "demo" / "bus.jpg") as image:
        large = image.resize((5480, 7307))  # 120 MB when decoded
    large.save(alone.datasets / "demo" / "large.jpg", quality=80)
    began = int(inside(alone, WORKER + "print(worker.memory_info().rss)"))
    found = results(predict(alone, *[local("large.jpg")] * 24))
    assert len(found) == 24
    for result in found:
        assert labels(result).count("person") >= 3
        assert result["result"][0]["original_width"] == 5480
    peak = inside(alone, WORKER + PEAK)
    # 24 of them would be 2.9 GB.
    assert int(peak) * 1024 - began < 1.2e9


def test_images_that_are_cut_off_or_none_spoil_only_themselves(alone: Stack) -> None:
    folder = alone.datasets / "demo"
    data = (folder / "bus.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    before = metric(alone, 'ls_yolo_errors_total{kind="media_damaged"}')
    bad = ("cut.jpg", "empty.jpg", "text.jpg")
    asked = map(local, ("bus.jpg", *bad, "zidane.jpg"))
    first, cut, *broken, last = results(predict(alone, *asked))
    assert "bus" in labels(first)
    assert labels(last) == ["person", "person"]
    # What is there of it is predicted on, as the browser shows it.
    assert cut["score"] is not None and "error" not in cut
    assert [(one["result"], one["score"]) for one in broken] == [([], None)] * 2
    reasons = ("the file is empty", "neither OpenCV nor Pillow")
    assert all(reason in one["error"] for one, reason in zip(broken, reasons, strict=True))
    assert metric(alone, 'ls_yolo_errors_total{kind="media_damaged"}') == before + 2


def test_an_upload_while_label_studio_is_down_fails_clearly_and_alone(alone: Stack) -> None:
    upload = "/data/upload/1/mine.jpg"
    good, bad = results(predict(alone, local("bus.jpg"), upload))
    assert labels(good).count("person") >= 3
    assert (bad["result"], bad["score"]) == ([], None)
    assert f"{upload}: unavailable from http://label-studio:8080" in bad["error"]
    # With nothing to show for it there is nothing to store either.
    refused = predict(alone, upload)
    assert refused.status_code == 500
    assert "http://label-studio:8080" in refused.json()["error"]


def test_images_that_come_slowly_or_without_end_are_given_up_and_hold_up_nobody(
    alone: Stack, pictures: str
) -> None:
    urls = [f"{pictures}/{name}.jpg" for name in ("drips", "endless", "silent")]
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        slow = pool.submit(predict, alone, *urls, local("bus.jpg"))
        for _ in range(3):
            started = time.monotonic()
            (result,) = results(predict(alone, local("bus.jpg")))
            assert labels(result).count("person") >= 3
            assert time.monotonic() - started < 5
        drips, endless, silent, good = results(slow.result())
    assert time.monotonic() - began < 45
    assert "more than 30 s in all" in drips["error"]
    assert "larger than 256 MiB" in endless["error"]
    assert "silent for 10 s" in silent["error"]
    assert labels(good).count("person") >= 3


def test_clients_that_send_slowly_or_without_end_are_let_go_and_hold_up_nobody(
    alone: Stack,
) -> None:
    port = int(alone.env["BACKEND_PORT"])
    token = base64.b64encode(":".join(alone.auth).encode()).decode()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: backend\r\nAuthorization: Basic {token}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    end = time.monotonic() + READ_TIMEOUT * 3

    def trickle(connection: socket.socket) -> bool:
        """Whether it was let go."""
        try:
            connection.sendall(head.encode())
            while time.monotonic() < end:
                connection.sendall(b"1\r\n \r\n")
                time.sleep(0.2)
        except OSError:
            return True
        return False

    def flood() -> str:
        """The answer to a body without end."""
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head.encode())
            while not select.select([connection], [], [], 0)[0]:
                connection.sendall(piece)
            return connection.recv(100).decode().splitlines()[0]

    with ThreadPoolExecutor(24) as pool:
        jobs = [pool.submit(trickle, connection) for connection in slow]
        time.sleep(1)
        waits = []
        for _ in range(5):
            started = time.monotonic()
            assert requests.get(f"{alone.backend_url}/health", timeout=10).ok
            waits.append(time.monotonic() - started)
        assert min(waits) < 0.05
        assert all(job.result() for job in jobs)
    for connection in slow:
        connection.close()
    assert flood() == "HTTP/1.1 413 REQUEST ENTITY TOO LARGE"
    assert labels(*results(predict(alone, local("zidane.jpg")))) == ["person", "person"]


def test_weights_that_are_damaged_while_it_serves_leave_the_old_ones_and_say_why(
    alone: Stack,
) -> None:
    weights = alone.folder / "models" / "yolov8n.pt"
    good = weights.read_bytes()
    (before,) = results(predict(alone, local("bus.jpg")))
    failed = metric(alone, 'ls_yolo_reloads_total{outcome="failed"}')

    def replace(data: bytes) -> None:
        new = weights.with_suffix(".new")
        new.write_bytes(data)
        new.replace(weights)

    replace(good[: len(good) // 2])
    try:
        rows = wait_for(
            lambda: (rows := ready(alone)["models"]) and all(row["error"] for row in rows) and rows,
        )
        assert {row["state"] for row in rows} == {"ready"}
        assert "yolov8n.pt" in rows[0]["error"]
        assert metric(alone, 'ls_yolo_reloads_total{outcome="failed"}') >= failed + 3
        assert results(predict(alone, local("bus.jpg"))) == [before]
        assert "answers on" in alone.log("backend")
    finally:
        replace(good)
    wait_for(lambda: not any(row["error"] for row in ready(alone)["models"]))
    assert results(predict(alone, local("bus.jpg"))) == [before]


def test_a_worker_that_is_killed_is_replaced_and_the_container_is_healthy_again(
    alone: Stack,
) -> None:
    killed = inside(alone, WORKER + "worker.kill(); print(worker.pid)")
    (result,) = results(predict(alone, local("bus.jpg")))  # it waits for the new one, and no longer
    assert labels(result).count("person") >= 3
    back = datetime.now(UTC).isoformat()

    def health() -> Any:
        return alone.container("backend").attrs["State"]["Health"]

    wait_for(lambda: health()["Log"][-1]["Start"] > back and health()["Status"] == "healthy")
    assert inside(alone, WORKER + "print(worker.pid)") != killed
    assert alone.container("backend").attrs["RestartCount"] == 0


# The last: it stops the container.
def test_at_sigterm_under_load_every_request_is_answered_and_the_exit_code_is_0(
    alone: Stack,
) -> None:
    container = alone.container("backend")
    images = 'ls_yolo_images_total{model="coco"}'
    before = metric(alone, images)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(predict, alone, *[local("bus.jpg")] * 6) for _ in range(8)]
        wait_for(lambda: metric(alone, images) >= before + 4)
        assert not all(job.done() for job in jobs)
        container.stop(timeout=40)
        for job in jobs:
            found = results(job.result())
            assert [labels(one).count("person") >= 3 for one in found] == [True] * 6
    assert container.wait()["StatusCode"] == 0
    assert "Traceback" not in alone.log("backend")
    for line in alone.log("backend").splitlines():
        json.loads(line)
