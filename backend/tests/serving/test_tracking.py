"""Which tracker a control asks for, and with what parameters."""

from __future__ import annotations

import pytest

from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.label_config import LabelConfigError
from ls_yolo.serving import tracking

BYTETRACK = "tracker_type: bytetrack\ntrack_high_thresh: 0.25\ntrack_buffer: 30\nfuse_score: True\n"
BOTSORT = BYTETRACK.replace("bytetrack", "botsort") + (
    "gmc_method: sparseOptFlow\nwith_reid: False\nmodel: auto\n"
)


@pytest.fixture
def own(tmp_path):
    """The folder of ultralytics' own files."""
    folder = tmp_path / "trackers"
    folder.mkdir()
    (folder / "bytetrack.yaml").write_text(BYTETRACK)
    (folder / "botsort.yaml").write_text(BOTSORT)
    return folder


@pytest.fixture
def ask(own, models_dir):
    """The parameters for the attributes of a VideoRectangle."""

    def ask(attributes="", custom=True):
        found = label_config.parse(
            '<View><Video name="v" value="$video"/><Labels name="l" toName="v"/>'
            f'<VideoRectangle name="box" toName="v" {attributes}/></View>'
        )
        (control,) = (one for one in found if one.tag == "VideoRectangle")
        return tracking.parameters(control, models_dir, own, custom)

    return ask


def test_botsort_where_nothing_is_asked_for(ask):
    assert ask() == {
        "tracker_type": "botsort",
        "track_high_thresh": 0.25,
        "track_buffer": 30,
        "fuse_score": True,
        "gmc_method": "sparseOptFlow",
        "with_reid": False,
        "model": "auto",
    }


def test_parameters_are_attributes_with_the_name_of_the_tracker_before_them(ask):
    found = ask(
        'model_tracker="bytetrack" bytetrack_track_high_thresh="0.5" bytetrack_track_buffer="60" '
        'bytetrack_fuse_score="false" botsort_track_buffer="1"'
    )
    assert found["tracker_type"] == "bytetrack"
    assert (found["track_high_thresh"], found["track_buffer"]) == (0.5, 60)
    assert found["fuse_score"] is False


@pytest.mark.parametrize("prefix", ["mine", "bytetrack"])
def test_a_file_of_the_models_folder_is_named_without_its_suffix(ask, models_dir, prefix):
    (models_dir / "mine.yaml").write_text("tracker_type: bytetrack\ntrack_high_thresh: 0.6\n")
    found = ask(f'model_tracker="mine" {prefix}_track_buffer="7"')
    # What the file does not say is as in ultralytics' own.
    assert found == {
        "tracker_type": "bytetrack",
        "track_high_thresh": 0.6,
        "track_buffer": 7,
        "fuse_score": True,
    }


def test_a_file_of_the_models_folder_replaces_one_of_its_name(ask, models_dir):
    (models_dir / "botsort.yaml").write_text(BOTSORT.replace("0.25", "0.5"))
    assert ask()["track_high_thresh"] == 0.5


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ('model_tracker="bytetrak"', "found 'bytetrak'.* did you mean 'bytetrack'"),
        ('model_tracker="../secret"', "lies outside"),
        ('model_tracker="tracktrack"', "found 'tracktrack', expected one of botsort"),
        ('botsort_max_age="10"', "botsort_max_age of 'box': the tracker has no 'max_age'"),
        ('botsort_track_bufer="10"', "did you mean 'track_buffer'"),
        ('botsort_track_buffer="1.5"', "found '1.5', expected a whole number"),
        ('botsort_track_buffer="long"', "found 'long', expected a number"),
        ('botsort_with_reid="true"', r"expected a weights file \(.pt\)"),
        ('botsort_with_reid="true" botsort_model="a.pt"', r"expected a .pt file inside"),
        ('botsort_with_reid="true" botsort_model="../a.pt"', r"expected a .pt file inside"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_could(ask, models_dir, attributes, message):
    (models_dir.parent / "secret.yaml").write_text(BYTETRACK)
    (models_dir.parent / "a.pt").write_text("")
    with pytest.raises(LabelConfigError, match=message):
        ask(attributes)


def test_appearance_is_told_by_a_weights_file_of_the_models_folder(ask, models_dir):
    (models_dir / "looks.pt").write_text("")
    found = ask('botsort_with_reid="true" botsort_model="looks.pt"')
    assert found["model"] == str(models_dir / "looks.pt")


def test_weights_are_named_only_where_labeling_configs_may_name_them(ask, models_dir):
    (models_dir / "looks.pt").write_text("")
    with pytest.raises(LabelConfigError, match="set ALLOW_CUSTOM_MODEL_PATH=true"):
        ask('botsort_with_reid="true" botsort_model="looks.pt"', custom=False)


@pytest.mark.parametrize("attributes", ['botsort_tracker_type="x"', f'model_tracker="{"a" * 300}"'])
def test_odd_attributes_are_refused_and_not_tried(ask, attributes):
    with pytest.raises(LabelConfigError):
        ask(attributes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("tracker_type: kalman", "tracker_type 'kalman'; expected one of botsort"),
        ("track_buffer: 3", "tracker_type None"),
        ("- a\n- b", "no list of names and values"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_file_that_describes_no_tracker_is_refused(ask, models_dir, content, message):
    (models_dir / "mine.yaml").write_text(content)
    with pytest.raises(LabelConfigError, match=message):
        ask('model_tracker="mine"')
