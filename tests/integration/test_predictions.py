"""What Label Studio has stored after a prediction was asked for, counted there and compared."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from label_studio_sdk.core.api_error import ApiError
from PIL import Image, ImageOps

from conftest import DEMO, MODELS, SEED_CONFIG, Stack, label_config

pytestmark = pytest.mark.docker


def boxes(prediction: Any) -> list[tuple[str, float, list[float]]]:
    """(label, score, [left, top, right, bottom] in 0 to 1) of each region, best first."""
    found = []
    for region in prediction.result:
        value = region["value"]
        left, top = value["x"] / 100, value["y"] / 100
        box = [left, top, left + value["width"] / 100, top + value["height"] / 100]
        found.append((value["rectanglelabels"][0], region["score"], box))
    return sorted(found, key=lambda item: -item[1])


def assert_same(stored: Any, direct: list[Any], labels: dict[str, str]) -> None:
    """The stored regions are the boxes of ultralytics, within one per cent of the image."""
    wanted = sorted(
        ([labels[n], s, b] for n, s, b in direct if n in labels), key=lambda item: -item[1]
    )
    found = boxes(stored)
    assert len(found) == len(wanted)
    for (label, score, box), (wanted_label, wanted_score, wanted_box) in zip(
        found, wanted, strict=True
    ):
        assert label == wanted_label
        assert score == pytest.approx(wanted_score, abs=0.01)
        assert box == pytest.approx(wanted_box, abs=0.01)


def opened(stack: Stack, name: str) -> Image.Image:
    return Image.open(stack.datasets / "demo" / name).convert("RGB")


def test_setup_stores_one_prediction_for_each_image_of_the_demo(stack: Stack, demo: Any) -> None:
    stored = stack.predictions(demo.id)
    assert len(stored) == 5
    assert {len(predictions) for predictions in stored.values()} == {1}
    assert sum(len(p.result) for (p,) in stored.values()) >= 8
    assert "Person" in {label for label, _, _ in boxes(stored["bus.jpg"][0])}


def test_stored_boxes_are_those_of_ultralytics(stack: Stack, demo: Any, direct: Any) -> None:
    wanted = direct(stack.datasets / "demo", 0.25, 0.7)
    labels = {"person": "Person", "bus": "Bus", "cat": "Cat", "tie": "Tie", "cup": "Cup"}
    stored = stack.predictions(demo.id)
    for name, answer in wanted.items():
        assert_same(stored[name][0], answer, labels)


def test_new_images_of_unusual_shapes_are_predicted_as_ultralytics_does(
    stack: Stack, direct: Any
) -> None:
    bus, zidane = opened(stack, "bus.jpg"), opened(stack, "zidane.jpg")
    stack.images(
        "shapes",
        wide=zidane.resize((1900, 400)),
        tall=bus.crop((0, 200, 500, 1080)),
        tiny=zidane.resize((160, 90)),
        grey=bus.convert("L"),
        mirrored=ImageOps.mirror(bus),
    )
    done = stack.setup(
        {"title": "shapes", "label_config": label_config("person", "bus", "tie"),
         "models": ["coco"], "storage": {"path": "shapes"}}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stored = stack.predictions(stack.project("shapes").id)
    wanted = direct(stack.datasets / "shapes", 0.25, 0.7)
    assert sorted(stored) == sorted(wanted)
    for name, answer in wanted.items():
        assert_same(stored[name][0], answer, {"person": "person", "bus": "bus", "tie": "tie"})


def test_an_image_turned_by_exif_gets_the_boxes_that_the_browser_shows(
    stack: Stack, direct: Any
) -> None:
    upright = opened(stack, "bus.jpg")
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # "turn me clockwise to see me upright"
    stack.images("exif", turned=turned, upright=upright)
    done = stack.setup(
        {"title": "exif", "label_config": label_config("person", "bus"), "models": ["coco"],
         "storage": {"path": "exif"}}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stored = stack.predictions(stack.project("exif").id)
    first, second = stored["turned.jpg"][0], stored["upright.jpg"][0]
    assert {(r["original_width"], r["original_height"]) for r in first.result} == {upright.size}
    # Two encodings of one picture differ a little, so only confident boxes are compared.
    sure = [[b for b in boxes(p) if b[1] > 0.5] for p in (first, second)]
    assert len(sure[0]) == len(sure[1]) >= 4
    for one, other in zip(*(sorted(s, key=lambda b: b[2]) for s in sure), strict=True):
        assert one[0] == other[0]
        assert one[2] == pytest.approx(other[2], abs=0.02)


def test_a_second_retrieve_and_a_second_setup_make_no_duplicates(stack: Stack, demo: Any) -> None:
    before = {name: [p.id for p in found] for name, found in stack.predictions(demo.id).items()}
    stack.retrieve(demo.id)
    again = stack.setup(DEMO)
    assert again.returncode == 0, again.stderr
    assert "5 tasks, each with a stored prediction" in again.stdout
    assert {
        name: [p.id for p in found] for name, found in stack.predictions(demo.id).items()
    } == before


def test_setup_answers_the_version_that_predictions_carry(stack: Stack, demo: Any) -> None:
    body = {"project": f"{demo.id}.1", "schema": demo.label_config}
    version = stack.post("/m/coco/setup", body).json()["model_version"]
    assert {p.model_version for found in stack.predictions(demo.id).values() for p in found} == {
        version
    }
    assert requests.get(
        f"{stack.backend_url}/m/coco/versions", auth=stack.auth, timeout=10
    ).json() == {"versions": [version]}


def test_label_studio_refuses_a_wrong_prediction_in_these_tests(stack: Stack, demo: Any) -> None:
    """Strict checking is on; else the other tests would prove less than they say."""
    wrong = {"from_name": "label", "to_name": "image", "type": "rectanglelabels",
             "value": {"x": 10, "y": 10, "width": 500, "height": 10,
                       "rectanglelabels": ["Nobody"]}}  # fmt: skip
    answer = requests.post(
        f"{stack.url}/api/predictions/",
        json={"task": stack.tasks(demo.id)[0].id, "result": [wrong]},
        headers={"Authorization": f"Token {stack.env['LABEL_STUDIO_API_KEY']}"},
        timeout=30,
    )
    assert answer.status_code == 400
    assert "out of bounds" in answer.text


def test_a_missing_image_among_good_ones_spoils_only_itself(stack: Stack) -> None:
    made = stack.api.projects.create(title="missing", label_config=label_config("person"))
    stack.api.import_storage.local.create(
        project=made.id, path="/datasets/demo", use_blob_urls=True, title="covers the files"
    )
    urls = [
        f"/data/local-files/?d=demo/{name}" for name in ("bus.jpg", "nowhere.jpg", "zidane.jpg")
    ]
    stack.api.projects.import_tasks(id=made.id, request=[{"image": url} for url in urls])
    done = stack.setup(
        {"title": "missing", "label_config": label_config("person"), "models": ["coco"]}
    )
    assert done.returncode == 0, done.stderr
    stored = stack.predictions(made.id)
    assert {name: len(found) for name, found in stored.items()} == {
        "bus.jpg": 1, "nowhere.jpg": 0, "zidane.jpg": 1,
    }  # fmt: skip
    assert "1 tasks could not be predicted" in done.stdout
    assert "'demo/nowhere.jpg': not found in /datasets" in done.stdout
    assert all(len(stored[name][0].result) >= 2 for name in ("bus.jpg", "zidane.jpg"))
    assert "nowhere.jpg" in stack.log("backend")


def test_an_image_that_was_missing_is_predicted_once_it_is_there(stack: Stack) -> None:
    config = label_config("person")
    project = {"title": "late", "label_config": config, "models": ["coco"]}
    made = stack.api.projects.create(title="late", label_config=config)
    tasks = [{"image": "/data/local-files/?d=late/bus.jpg"}]
    stack.api.projects.import_tasks(id=made.id, request=tasks)
    assert stack.setup(project).returncode == 0
    stack.images("late", bus=opened(stack, "bus.jpg"))
    done = stack.setup(project)
    assert done.returncode == 0, done.stderr
    (stored,) = stack.api.predictions.list(project=made.id)
    assert len(stored.result) >= 3
    assert "could not be predicted" not in done.stdout


def test_a_new_label_is_predicted_although_the_model_is_the_same(stack: Stack) -> None:
    project = {"title": "labels", "models": ["coco"], "storage": {"path": "demo"}}
    for labels in (("person",), ("person", "bus")):
        done = stack.setup({**project, "label_config": label_config(*labels)})
        assert done.returncode == 0, done.stderr
    stored = stack.predictions(stack.project("labels").id)
    assert [len(found) for found in stored.values()] == [1] * 5
    assert {label for label, _, _ in boxes(stored["bus.jpg"][0])} == {"person", "bus"}


def test_a_configuration_that_label_studio_refuses_leaves_everything_as_it_was(
    stack: Stack,
) -> None:
    project = {"title": "in use", "models": ["coco"], "storage": {"path": "demo"}}
    config = label_config("person", "bus")
    assert stack.setup({**project, "label_config": config}).returncode == 0
    number = stack.project("in use").id
    before = {name: [p.id for p in found] for name, found in stack.predictions(number).items()}
    (region, *_) = stack.predictions(number)["bus.jpg"][0].result
    task = next(task for task in stack.tasks(number) if stack.file_name(task) == "bus.jpg")
    stack.api.annotations.create(id=task.id, result=[region])
    renamed = config.replace('name="label"', 'name="other"')
    done = stack.setup({**project, "label_config": renamed})
    assert done.returncode == 1
    assert "in use: Label Studio: 400" in done.stderr
    after = {name: [p.id for p in found] for name, found in stack.predictions(number).items()}
    assert after == before
    assert stack.api.projects.get(number).label_config == config


def test_what_was_stored_twice_is_stored_once_after_the_next_setup(stack: Stack) -> None:
    project = {"title": "twice", "label_config": label_config("person"), "models": ["coco"],
               "storage": {"path": "demo"}}  # fmt: skip
    assert stack.setup(project).returncode == 0
    number = stack.project("twice").id
    (first,) = stack.predictions(number)["bus.jpg"]
    stack.api.predictions.create(
        task=first.task, result=first.result, score=first.score, model_version=first.model_version
    )
    assert len(stack.predictions(number)["bus.jpg"]) == 2
    assert stack.setup(project).returncode == 0
    assert [p.id for p in stack.predictions(number)["bus.jpg"]] == [first.id]


def test_a_file_outside_the_datasets_is_never_read(stack: Stack) -> None:
    (stack.datasets / "demo" / "way-out.jpg").symlink_to("/models/yolov8n.pt")
    try:
        names = [
            "../etc/passwd",
            "/etc/passwd",
            "demo/../../etc/passwd",
            "demo/way-out.jpg",
            "..%2Fetc%2Fpasswd",
        ]
        tasks = [
            {"id": i, "data": {"image": f"/data/local-files/?d={n}"}} for i, n in enumerate(names)
        ]
        answer = stack.post(
            "/predict", {"tasks": tasks, "project": "", "label_config": label_config("person")}
        )
    finally:
        (stack.datasets / "demo" / "way-out.jpg").unlink()
    assert answer.status_code == 200
    assert [result["result"] for result in answer.json()["results"]] == [[]] * len(names)
    assert stack.log("backend").count("lies outside /datasets") >= len(names)
    page = requests.get(
        f"{stack.url}/data/local-files/",
        params={"d": "../etc/passwd"},
        headers={"Authorization": f"Token {stack.env['LABEL_STUDIO_API_KEY']}"},
        timeout=30,
    )
    assert page.status_code != 200
    assert "root:" not in page.text


def test_a_label_that_the_model_lacks_is_named_and_the_others_are_predicted(stack: Stack) -> None:
    done = stack.setup(
        {"title": "unicorn", "label_config": label_config("person", "unicorn"), "models": ["coco"],
         "storage": {"path": "demo"}}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "unicorn" in done.stdout
    stored = stack.predictions(stack.project("unicorn").id)
    assert {label for found in stored.values() for p in found for label, _, _ in boxes(p)} == {
        "person"
    }


def test_labels_of_which_none_is_a_class_are_an_error_that_names_both_sides(stack: Stack) -> None:
    done = stack.setup(
        {"title": "nothing maps", "label_config": label_config("unicorn"), "models": ["coco"]}
    )
    assert done.returncode == 1
    assert "unicorn" in done.stderr
    assert "airplane" in done.stderr


def test_an_upload_is_fetched_with_the_token_and_predicted(stack: Stack) -> None:
    config = label_config("person", "tie")
    made = stack.api.projects.create(title="uploads", label_config=config)
    with (stack.datasets / "demo" / "zidane.jpg").open("rb") as file:
        requests.post(
            f"{stack.url}/api/projects/{made.id}/import",
            files={"file": ("mine.jpg", file)},
            headers={"Authorization": f"Token {stack.env['LABEL_STUDIO_API_KEY']}"},
            timeout=30,
        ).raise_for_status()
    done = stack.setup({"title": "uploads", "label_config": config, "models": ["coco"]})
    assert done.returncode == 0, done.stderr
    ((stored,),) = stack.predictions(made.id).values()
    assert sorted(label for label, _, _ in boxes(stored)) == ["person", "person", "tie"]


def test_a_connection_of_the_seed_chooses_its_models_and_keeps_them_over_a_restart(
    stack: Stack,
) -> None:
    """extra_params come in /setup only; after a restart the backend asks for them."""
    made = stack.api.projects.create(title="seed", label_config=SEED_CONFIG)
    stack.api.ml.create(
        project=made.id, url="http://backend:9090", title="by hand", auth_method="BASIC_AUTH",
        basic_auth_user=stack.auth[0], basic_auth_pass=stack.auth[1],
        extra_params={"0": "wheelhouse-person", "1": "wheelhouse-head"},
    )  # fmt: skip
    stack.api.projects.import_tasks(
        id=made.id, request=[{"image": "/data/local-files/?d=demo/bus.jpg"}]
    )
    stack.retrieve(made.id)
    (stored,) = stack.api.predictions.list(project=made.id)
    versions = stored.model_version.split("+")
    assert [version.partition("@")[0] for version in versions] == [
        "wheelhouse-head",
        "wheelhouse-person",
    ]
    # The second model calls its persons "head", which is no label here, so nothing stands twice.
    assert {label for label, _, _ in boxes(stored)} == {"person"}
    assert min(score for _, score, _ in boxes(stored)) >= 0.2

    stack.run("restart", "backend")
    stack.up()
    (task,) = stack.tasks(made.id)
    # Straight to /predict, as interactive labeling does: this process never saw /setup.
    answer = requests.post(
        f"{stack.backend_url}/predict", auth=stack.auth, timeout=60,
        json={"tasks": [{"id": task.id, "data": task.data}], "project": f"{made.id}.1",
              "label_config": SEED_CONFIG},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["model_version"] == stored.model_version


def test_label_studio_says_why_the_backend_refuses_a_connection(stack: Stack) -> None:
    made = stack.api.projects.create(title="refused", label_config=label_config("zeppelin"))
    with pytest.raises(ApiError, match=r"400 Client Error: no label maps to a class: .*zeppelin; "):
        stack.api.ml.create(
            project=made.id, url="http://backend:9090/m/coco", auth_method="BASIC_AUTH",
            basic_auth_user=stack.auth[0], basic_auth_pass=stack.auth[1],
        )  # fmt: skip


def test_several_models_in_the_url_answer_together(stack: Stack) -> None:
    config = label_config("person", "head")
    done = stack.setup(
        {"title": "together", "label_config": config, "storage": {"path": "demo"},
         "models": ["wheelhouse-person", "wheelhouse-head"]}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (stored,) = stack.predictions(stack.project("together").id)["bus.jpg"]
    labels = [label for label, _, _ in boxes(stored)]
    assert labels.count("person") == labels.count("head") >= 3
    assert set(MODELS) >= {version.partition("@")[0] for version in stored.model_version.split("+")}


def test_a_call_without_authentication_is_refused_and_health_is_not(stack: Stack) -> None:
    body = {"tasks": [], "label_config": label_config("person")}
    refused = stack.post("/predict", body, authenticated=False)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic")
    assert stack.post("/m/coco/setup", {}, authenticated=False).status_code == 401
    assert requests.get(f"{stack.backend_url}/versions", timeout=10).status_code == 401
    for path in ("/health", "/livez", "/readyz", "/m/coco/health"):
        assert requests.get(stack.backend_url + path, timeout=10).status_code == 200
