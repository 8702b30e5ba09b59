"""Classes that cannot be served are told with their fix."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ls_yolo.images.web import Web
from ls_yolo.user_model import loader
from ls_yolo.user_model.loader import ModelClassError
from ls_yolo.user_model.runner import ModelRunner
from tests.user_model.classes import (
    HEAD,
    MANY_MODELS,
    ask,
    numbers,
    predictor,
    set_up,
)


@pytest.mark.parametrize(
    ("spec", "text", "message"),
    [
        ("absent:NewModel", "", r"no module is called 'MODULE'; expected the file .*/MODULE\.py"),
        ("a:Newmodel", MANY_MODELS, r"'Newmodel' is not there; did you mean 'NewModel'\?"),
        ("b:Other", "class Other: pass", "'Other' is not derived from LabelStudioMLBase"),
        (
            "c:NewModel",
            "import no_such_thing",
            "MODULE imports 'no_such_thing', which is not installed",
        ),
        ("d:NewModel", "1 / 0", "(?s)MODULE cannot be imported:.*ZeroDivisionError"),
        ("e:NewModel", "(", "(?s)MODULE cannot be imported:.*SyntaxError"),
        (
            "f:NewModel",
            HEAD
            + "class NewModel(LabelStudioMLBase):\n    def setup(self):\n        open('w.pt')\n",
            "(?s)NewModel cannot be made:.*No such file or directory: 'w.pt'",
        ),
    ],
)
def test_what_cannot_be_served_is_said_with_its_fix(tmp_path, spec, text, message):
    module = f"{spec.partition(':')[0]}_{next(numbers)}"
    message = message.replace("MODULE", module)
    if text:
        (tmp_path / f"{module}.py").write_text(text)
    with pytest.raises(ModelClassError, match=message):
        ModelRunner(f"{module}:{spec.partition(':')[2]}", tmp_path, tmp_path, None, Web())


def test_a_class_that_reads_the_labels_when_it_is_made_is_made_with_the_first_request(
    serve, tasks, caplog
):
    client, mine = serve(
        predictor("return [{'result': [], 'name': self.name} for t in tasks]")
        + "    def setup(self):\n"
        "        self.name, *_ = self.label_interface.get_first_tag_occurence(\n"
        "            'RectangleLabels', 'Image')\n"
    )
    assert mine._instance is None
    assert "asks for a labeling config when it is made" in caplog.text
    assert set_up(client) == "0.0.1"
    assert ask(client, tasks(1))[0]["name"] == "label"


def test_the_real_package_comes_before_ours(tmp_path, own):
    """Where label-studio-ml is installed, a model.py gets it."""
    own(MANY_MODELS)
    assert sys.path[-1] == str(loader.COMPAT)
    assert Path(sys.modules["label_studio_ml"].__file__).is_relative_to(loader.COMPAT)
