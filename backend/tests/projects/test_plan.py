"""What must change so that Label Studio has what a file names: for any file and any project."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ls_yolo.projects import fields, state, storages
from ls_yolo.projects.plan import Item, State, after, plan, unnamed

SOME = settings(max_examples=25, deadline=None)
WORDS = st.sampled_from(["", "a", "b", "c/d"])
PLACES = {"local": "path", "s3": "bucket", "gcs": "bucket", "azure": "container"}


@st.composite
def storage(draw, kind, complete):
    type_ = draw(st.sampled_from(sorted(PLACES)))
    made = {"type": type_, PLACES[type_]: draw(st.sampled_from(["x", "y", "z"]))}
    usual = dict(state.KINDS[kind].defaults(made))
    more = {key: value for key, value in usual.items() if key != PLACES[type_]}
    chosen = more if complete else draw(st.sets(st.sampled_from(sorted(more))))
    for key in chosen:
        value = more[key]
        made[key] = draw(
            st.booleans() if isinstance(value, bool)
            else st.integers(1, 9) if isinstance(value, int)
            else WORDS
        )  # fmt: skip
    if not complete:
        for name in storages.HIDDEN[type_]:
            made[name] = f"${{{name.upper()}}}"
    return made


@st.composite
def view(draw, complete):
    made = {"title": draw(st.sampled_from(["one", "two"]))}
    if complete or draw(st.booleans()):
        made["ordering"] = draw(st.lists(WORDS, max_size=1))
    return made


@st.composite
def hook(draw, complete):
    made = {"url": draw(st.sampled_from(["http://a", "http://b"]))}
    if complete or draw(st.booleans()):
        made |= {"actions": draw(st.lists(st.sampled_from(["X", "Y"]), unique=True).map(sorted)),
                 "send_payload": draw(st.booleans()), "is_active": True, "headers": {}}  # fmt: skip
    return made


@st.composite
def states(draw, complete):
    usual = {**fields.DEFAULTS, "label_config": "<View/>", "models": []}
    keys = usual if complete else draw(st.sets(st.sampled_from(sorted(usual))))
    own = {
        key: draw(
            st.booleans() if isinstance(usual[key], bool)
            else st.integers(1, 3) if isinstance(usual[key], int)
            else st.just([]) | st.just(["coco"]) if key == "models"
            else WORDS
        )
        for key in keys
    }  # fmt: skip
    kinds = {
        "source_storages": storage("source_storages", complete),
        "target_storages": storage("target_storages", complete),
        "webhooks": hook(complete),
        "views": view(complete),
    }
    items = {kind: [Item(number, one) for number, one in enumerate(draw(st.lists(how, max_size=4)))]
             for kind, how in kinds.items()}  # fmt: skip
    return State(own, items)


@SOME
@given(states(complete=False), states(complete=True))
def test_after_a_plan_there_is_nothing_left_to_do(wanted, found):
    then = after(found, plan(wanted, found, state.KINDS))
    assert plan(wanted, then, state.KINDS) == []


@SOME
@given(states(complete=False), states(complete=True))
def test_after_pruning_there_is_what_the_file_has_and_no_more(wanted, found):
    then = after(found, plan(wanted, found, state.KINDS, prune=True))
    assert plan(wanted, then, state.KINDS, prune=True) == []
    for kind, known in state.KINDS.items():
        there = sorted(str(known.key(item.fields)) for item in then.items.get(kind, ()))
        named = sorted(str(known.key(item.fields)) for item in wanted.items.get(kind, ()))
        assert there == named


@SOME
@given(states(complete=False), states(complete=True))
def test_what_a_file_does_not_name_stays_and_is_told(wanted, found):
    changes = plan(wanted, found, state.KINDS)
    then = after(found, changes)
    for key, value in found.fields.items():
        if key not in wanted.fields:
            assert then.fields[key] == value
    assert not [change for change in changes if change.action == "delete"]
    told = unnamed(wanted, found, state.KINDS, fields.DEFAULTS)
    for key, usual in fields.DEFAULTS.items():
        stays = key not in wanted.fields and found.fields[key] != usual
        assert any(line.startswith(f"{key} ") for line in told) == stays


@SOME
@given(states(complete=False), states(complete=True))
def test_a_secret_is_never_among_what_differs(wanted, found):
    for change in plan(wanted, found, state.KINDS):
        if change.action == "change" and change.kind in storages.KINDS:
            assert not set(change.fields) & state.KINDS[change.kind].hidden


def test_deletions_come_first_so_that_a_place_is_free():
    found = State({}, {"views": [Item(1, {"title": "old"})]})
    wanted = State({}, {"views": [Item(None, {"title": "new"})]})
    assert [one.action for one in plan(wanted, found, state.KINDS, True)] == ["delete", "create"]
