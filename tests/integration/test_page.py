"""The page that a person opens: the boxes are seen, not only stored."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Request, TimeoutError, sync_playwright

from conftest import ARTIFACTS, DEMO, Stack, lacking

pytestmark = [pytest.mark.docker, pytest.mark.browser]

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
# The browser's own calls home would only fail, slowly, where there is no internet.
QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-sandbox"]  # fmt: skip


@contextlib.contextmanager
def open_page(stack: Stack) -> Iterator[Page]:
    """A page of a person who is logged in."""
    if BROWSER is None:
        lacking("no Chromium here: apt-get install chromium, or `make test` as root")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{stack.url}/user/login")
        page.fill("input[name=email]", stack.env["LABEL_STUDIO_USERNAME"])
        page.fill("input[name=password]", stack.env["LABEL_STUDIO_PASSWORD"])
        page.click("button[type=submit]")
        page.wait_for_url(f"{stack.url}/")
        yield page
        browser.close()


def open_task(
    stack: Stack, page: Page, project: int, task: int, canvas: str = ".konvajs-content canvas"
) -> None:
    """Opens a task in the page; returns once its ``canvas`` and the regions of its prediction are
    there."""
    page.goto(f"{stack.url}/projects/{project}/data?task={task}")
    regions = "() => window.Htx?.annotationStore?.selected?.results?.length > 0"
    try:
        page.locator(canvas).first.wait_for(timeout=60_000)
        page.wait_for_function(regions, timeout=30_000)
    except TimeoutError:
        # Seen once, on a very busy machine: Label Studio's page came without the regions that are
        # stored. A person would load it again; how it looked is kept.
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=str(ARTIFACTS / "page-without-regions.png"))
        page.reload()
        page.wait_for_function(regions, timeout=60_000)


def other_hosts(stack: Stack, page: Page) -> list[str]:
    """A list that gets every address of another host that the page asks from now on."""
    asked: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith((f"{stack.url}/", "data:", "blob:")):
            asked.append(request.url)

    page.on("request", note)
    return asked


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    with open_page(stack) as page:
        yield page


def test_a_task_shows_the_boxes_of_its_prediction(stack: Stack, demo: Any, page: Page) -> None:
    task = next(task for task in stack.tasks(demo.id) if task.data["image"].endswith("bus.jpg"))
    (stored,) = stack.predictions(demo.id)["bus.jpg"]
    page.goto(f"{stack.url}/projects/{demo.id}/data?task={task.id}")
    page.get_by_text("Bus", exact=True).nth(1).wait_for(timeout=60_000)
    page.locator(".konvajs-content canvas").first.wait_for(timeout=60_000)
    page.wait_for_timeout(2000)  # the canvas draws after the picture has loaded

    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTIFACTS / "demo.png"))
    # The label's own button, and a line in the list of regions for each box.
    persons = sum(r["value"]["rectanglelabels"] == ["Person"] for r in stored.result)
    assert persons >= 4
    assert page.get_by_text("Person", exact=True).count() == persons + 1

    # A border in the label's colour runs where the stored box of the bus says.
    box = next(r["value"] for r in stored.result if r["value"]["rectanglelabels"] == ["Bus"])
    canvas = page.locator(".konvajs-content").first.bounding_box()
    assert canvas is not None
    pixels = np.asarray(Image.open(ARTIFACTS / "demo.png").convert("RGB")).astype(int)
    colour = np.array([int(colour_of("Bus")[i : i + 2], 16) for i in (1, 3, 5)])
    # The image is as high as the canvas and stands at its left.
    region = stored.result[0]
    width = canvas["height"] * region["original_width"] / region["original_height"]
    y = int(canvas["y"] + canvas["height"] * box["y"] / 100)
    x0 = canvas["x"] + width * box["x"] / 100
    x1 = x0 + width * box["width"] / 100
    band = pixels[y - 4 : y + 5, int(x0) + 20 : int(x1) - 20]
    distance = np.abs(band - colour).sum(axis=2).mean(axis=1)
    # A row at the edge is in the label's colour from end to end; the image is not.
    assert distance.min() < 110, distance
    assert distance[0] > 2 * distance.min(), distance


def colour_of(label: str) -> str:
    """The colour that the demo's labeling config gives a label."""
    _, _, rest = DEMO["label_config"].partition(f'value="{label}" background="')
    return str(rest.partition('"')[0])


def test_the_list_shows_every_image_with_a_prediction(stack: Stack, demo: Any, page: Page) -> None:
    page.goto(f"{stack.url}/projects/{demo.id}/data")
    page.get_by_text("Tasks: 5 / 5").wait_for(timeout=60_000)
    page.get_by_text("Predictions: 5").wait_for(timeout=60_000)
    page.wait_for_timeout(1500)
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTIFACTS / "tasks.png"))
    thumbnails = page.locator("img[src*='/tasks/'], img[src*='/data/']")
    assert thumbnails.count() >= 5
    assert all(
        thumbnails.nth(i).evaluate("i => i.complete && i.naturalWidth > 0")
        for i in range(thumbnails.count())
    )


def test_no_page_asks_another_host(stack: Stack, demo: Any, page: Page) -> None:
    """Which there may be none of; and who serves them would learn who labels what."""
    task = stack.tasks(demo.id)[0].id
    asked = other_hosts(stack, page)
    found: dict[str, list[str]] = {}
    for path in (
        "/projects", f"/projects/{demo.id}/data", f"/projects/{demo.id}/data?task={task}",
        *(f"/projects/{demo.id}/settings{part}" for part in ("", "/labeling", "/ml", "/storage")),
        "/organization", "/user/account", "/docs/api", "/docs/api/schema/swagger-ui/",
        "/logout", "/user/login", "/user/signup", "/not-there",
    ):  # fmt: skip
        page.goto(f"{stack.url}{path}")
        page.wait_for_load_state("networkidle")
        if asked:
            found[path] = list(asked)
            asked.clear()
    assert found == {}
