"""The status page in a real browser: what it shows, and that everybody can use it."""

from __future__ import annotations

import base64
import contextlib
import http.server
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright

from conftest import ARTIFACTS, MODELS, Stack, lacking
from shapes import shapes
from test_page import BROWSER, QUIET

pytestmark = [pytest.mark.docker, pytest.mark.browser]

TASKS = ("segment", "obb", "pose", "classify")
JOB = {
    "project": 1,
    "title": "Harbour cameras",
    "version": "coco@0123456789ab",
    "done": 41_250,
    "total": 100_000,
    "failed": 3,
    "rate": 31.4,
    "shard": "0/4",
    "host": "gpu-node-1",
}
Open = Callable[..., Page]
# What stands beyond the right edge of the page, but for what scrolls by itself.
TOO_WIDE = """() => [...document.querySelectorAll('body *')]
  .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .filter(one => !one.parentElement.closest('.scroll, svg'))
  .map(one => one.outerHTML.slice(0, 120))
"""


@pytest.fixture(scope="module")
def backend(stack: Stack, demo: Any) -> Iterator[Stack]:
    """The services, with the demo's project, and a model for each task beside the usual ones."""
    path = stack.folder / "models" / "models.yaml"
    before = path.read_text()
    more = {"segment": {"weights": "yolov8n-seg.pt", "conf": 0.4}}
    for task in ("obb", "pose", "classify"):
        shutil.copy(shapes() / f"{task}.pt", stack.folder / "models")
        more[task] = {"weights": f"{task}.pt", "conf": 0.4}
    path.write_text(yaml.safe_dump({**MODELS, **more}, sort_keys=False))
    assert stack.post("/reload", {}).status_code == 200
    yield stack
    path.write_text(before)
    assert stack.post("/reload", {}).status_code == 200


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if BROWSER is None:
        lacking("no Chromium here: apt-get install chromium, or `make test` as root")
    # What a busy Label Studio has not answered when the page is made comes with its next look.
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Browser, backend: Stack) -> Iterator[Open]:
    """Opens the page as a person who knows the password: ``show(width=390)``.

    At the end nothing outside was asked for, and the browser had nothing to complain of, such as
    what the page's own policy forbids.
    """
    complaints: list[str] = []

    def asked(url: str) -> None:
        if not url.startswith((backend.backend_url, "data:", "blob:")):
            complaints.append(url)

    with contextlib.ExitStack() as opened:

        def show(width: int = 1280, height: int = 900, scheme: Any = "light") -> Page:
            user, password = backend.auth
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                http_credentials={"username": user, "password": password},
                device_scale_factor=1,
            )
            opened.callback(context.close)
            page = context.new_page()
            page.on("request", lambda request: asked(request.url))
            page.on("console", lambda said: complaints.append(said.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(backend.backend_url)
            return page

        yield show
    # Of an answer like 400 a browser tells too, and of a network that changes: tests look at what
    # they wait for themselves.
    assert [one for one in complaints if "Failed to load resource" not in one] == []


def screenshot(shown: Page | Locator, name: str, **more: Any) -> None:
    """Light, dark, phone and try are copied to docs/images when the page changes."""
    ARTIFACTS.mkdir(exist_ok=True)
    shown.screenshot(path=str(ARTIFACTS / f"status-{name}.png"), **more)


def violations(page: Page) -> list[str]:
    """What axe finds wrong, whatever it takes for its weight."""
    found = Axe().run(page).response["violations"]
    return [f"{one['impact']}: {one['id']}: {one['nodes'][0]['html']}" for one in found]


def try_json(backend: Stack, model: str, image: bytes) -> Any:
    answer = requests.post(
        f"{backend.backend_url}/try",
        files={"image": ("a.jpg", image)},
        data={"model": model},
        auth=backend.auth,
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def image_of(backend: Stack, task: str) -> bytes:
    if task in ("segment", "coco"):
        return (backend.datasets / "demo" / "bus.jpg").read_bytes()
    return (shapes() / f"{task}.jpg").read_bytes()


def bounds(path: str) -> tuple[float, ...]:
    """Left, top, right, bottom of an SVG path."""
    numbers = [float(number) for number in re.findall(r"-?[0-9.]+", path)]
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def test_without_the_password_there_is_no_page(browser: Browser, backend: Stack) -> None:
    context = browser.new_context()
    page = context.new_page()
    with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        page.goto(backend.backend_url)
    # The browser's own page of the error may still be on its way: `content()` refuses that.
    expect(page.locator("body")).not_to_contain_text("coco")
    context.close()
    # Machines are answered as before.
    assert requests.get(backend.backend_url, timeout=10).json()["status"] == "UP"


def test_the_page_shows_what_runs(backend: Stack, demo: Any, show: Open) -> None:
    missing = {"id": 9, "data": {"image": "/data/local-files/?d=demo/lost.jpg"}}
    tasks = [task.model_dump(include={"id", "data"}) for task in backend.tasks(demo.id)]
    body = {"tasks": [*tasks * 2, missing], "label_config": demo.label_config}
    assert backend.post("/m/coco/predict", body).status_code == 200
    assert requests.post(f"{backend.backend_url}/jobs", json=JOB, auth=backend.auth, timeout=10).ok
    time.sleep(12)  # a point of the last hour is ten seconds
    page = show()
    versions = requests.get(f"{backend.backend_url}/versions", auth=backend.auth, timeout=10).json()
    models = page.locator("#models")
    for version in versions["versions"]:
        expect(models.get_by_text(version)).to_be_visible()
    expect(models.get_by_text("openvino").or_(models.get_by_text("torch")).first).to_be_visible()
    assert float(re.findall(r"Rate\s+([0-9.]+) images", models.inner_text())[0]) > 0
    project = page.locator("#projects li").filter(has_text=f"{demo.title} ({demo.id})")
    expect(project.get_by_role("row", name="Person person")).to_be_visible()
    expect(page.locator("#jobs")).to_contain_text("41,250 of 100,000 tasks, 3 failed, 31 a second")
    expect(page.locator("#errors")).to_contain_text("demo/lost.jpg': not found")
    expect(page.locator("#errors")).to_contain_text("Fix: put the file back")
    lines = page.locator("#hour .line")
    assert lines.count() >= 3
    assert all(lines.nth(index).get_attribute("d") for index in range(lines.count()))
    screenshot(page, "light", full_page=True)
    assert violations(page) == []


def test_in_the_dark_it_is_dark_and_readable(show: Open) -> None:
    page = show(scheme="dark")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert all(int(value) < 60 for value in re.findall(r"[0-9]+", back)[:3])
    screenshot(page, "dark")
    assert violations(page) == []


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_nothing_is_cut_off(backend: Stack, show: Open, width: int) -> None:
    page = show(width=width, height=844)
    page.set_input_files("#image", backend.datasets / "demo" / "bus.jpg")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#result")).to_be_visible()
    for _ in range(2):
        assert page.evaluate(TOO_WIDE) == []
        assert violations(page) == []
        page.goto(backend.backend_url)
    screenshot(page, "phone")


def test_a_keyboard_alone_is_enough(backend: Stack, show: Open) -> None:
    page = show()
    focused = page.locator(":focus")
    # From the start, since the browser that is told of it with the key may open its own dialog.
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Tab")
        expect(focused).to_have_text("Skip to the content")
        expect(focused).to_be_in_viewport()
        page.keyboard.press("Enter")
        for _ in range(3):
            page.keyboard.press("Tab")
            if focused.get_attribute("id") == "image":
                break
        expect(focused).to_have_id("image")
        page.keyboard.press("Space")
    chooser.value.set_files(backend.datasets / "demo" / "bus.jpg")
    page.keyboard.press("Tab")
    expect(focused).to_have_id("model")
    page.keyboard.type("seg")
    page.keyboard.press("Tab")
    page.keyboard.type("0.3")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    # What was waited for has the focus, and the rest of the page is reached from there.
    expect(focused).to_have_id("result")
    expect(page.locator("#tried-caption")).to_contain_text("(segment)")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('section')?.id"))
    assert {"models", "projects"} <= reached


def test_an_image_that_is_dropped_is_predicted_and_drawn(backend: Stack, show: Open) -> None:
    page = show()
    image = image_of(backend, "coco")
    data = page.evaluate_handle(
        """text => {
          const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
          const data = new DataTransfer();
          data.items.add(new File([bytes], 'bus.jpg', {type: 'image/jpeg'}));
          return data;
        }""",
        base64.b64encode(image).decode(),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    expect(page.locator("#result")).to_be_visible()
    found = try_json(backend, "coco", image)["boxes"]
    assert len(found) >= 5
    paths = page.locator(".shape path")
    drawn = sorted(bounds(paths.nth(n).get_attribute("d") or "") for n in range(paths.count()))
    assert np.allclose(drawn, sorted(tuple(row["box"]) for row in found), atol=0.2)
    # The picture and what is drawn on it lie on each other, in the places of the screen too.
    picture = page.locator(".tried svg image").bounding_box()
    first = paths.first.bounding_box()
    assert picture and first
    scale = picture["width"] / 810
    left, _, right, _ = found[0]["box"]
    middle = picture["x"] + (left + right) / 2 * scale
    assert first["x"] + first["width"] / 2 == pytest.approx(middle, abs=2)
    screenshot(page.locator("#try"), "try")
    assert violations(page) == []


@pytest.mark.parametrize("task", TASKS)
def test_the_regions_of_every_task_are_seen(backend: Stack, show: Open, task: str) -> None:
    page = show()
    image = image_of(backend, task)
    page.set_input_files("#image", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": image})
    page.select_option("#model", task)
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#tried-caption")).to_contain_text(f"({task})")
    found = try_json(backend, task, image)
    rows = found.get("boxes", found.get("classes"))
    assert rows
    listed = page.locator("#result tbody tr").all_inner_texts()
    assert sorted(text.split("\t") for text in listed) == sorted(
        [row["label"], f"{row['score']:.2f}"] for row in rows
    )
    paths = page.locator(".shape path")
    lines = [paths.nth(n).get_attribute("d") or "" for n in range(paths.count())]
    assert len(lines) == (0 if task == "classify" else len(rows))
    if task == "obb":
        corners = sorted(sorted(map(tuple, row["corners"])) for row in rows)
        numbers = [re.findall(r"[0-9.]+", line) for line in lines]
        drawn = sorted(
            sorted(zip(map(float, one[::2]), map(float, one[1::2]), strict=True)) for one in numbers
        )
        assert np.allclose(drawn, corners, atol=0.2)
    if task == "segment":
        assert all(len(re.findall(r"[0-9.]+", line)) > 20 for line in lines)
    if task == "pose":
        seen = sum(point[2] > 0.25 for row in rows for point in row["keypoints"])
        assert page.locator(".shape circle").count() == seen > 0
    screenshot(page.locator("#try"), f"try-{task}")
    assert violations(page) == []


def test_what_is_no_image_is_told_in_the_page(show: Open) -> None:
    page = show()
    page.set_input_files(
        "#image", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"no image"}
    )
    with page.expect_response("**/try") as answer:
        page.get_by_role("button", name="Predict").click()
    assert answer.value.status == 400
    expect(page.get_by_role("alert")).to_contain_text("not an image that can be decoded")
    assert violations(page) == []


def test_it_keeps_itself_up_to_date_unless_it_is_told_not_to(backend: Stack, show: Open) -> None:
    page = show()
    page.clock.install()
    page.reload()
    page.get_by_text("Classes of coco").click()
    jobs = page.locator("#jobs")

    def report(done: int) -> None:
        requests.post(
            f"{backend.backend_url}/jobs", json=JOB | {"done": done}, auth=backend.auth, timeout=10
        )

    report(50_000)
    page.locator("#main").focus()
    page.clock.run_for(11_000)
    expect(jobs).to_contain_text("50,000 of 100,000")
    expect(page.locator("details[data-keep=classes-coco]")).to_have_attribute("open", "")
    page.get_by_label("Keep this page up to date").uncheck()
    report(60_000)
    with contextlib.suppress(AssertionError):
        page.clock.run_for(30_000)
        expect(jobs).to_contain_text("60,000", timeout=2_000)
        pytest.fail("it asked all the same")


def test_a_page_of_another_site_cannot_try_or_report(browser: Browser, backend: Stack) -> None:
    """With the password that the browser knows and sends along."""
    form = (
        f'<form method="post" action="{backend.backend_url}/try" enctype="multipart/form-data">'
        '<input name="model" value="coco"><button>Go</button></form>'
    )

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(form.encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    user, password = backend.auth
    context = browser.new_context(http_credentials={"username": user, "password": password})
    try:
        page = context.new_page()
        page.goto(backend.backend_url)
        page.goto(f"http://localhost:{server.server_port}/")
        with page.expect_navigation() as gone:
            page.get_by_role("button", name="Go").click()
        assert gone.value is not None
        assert gone.value.status == 403
        assert "expected one of" in page.content()
    finally:
        context.close()
        server.shutdown()
        server.server_close()
