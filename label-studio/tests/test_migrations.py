"""Which database is of a newer Label Studio."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ls_kit import migrations

NAMES = st.tuples(
    st.sampled_from(["tasks", "projects"]), st.integers(1, 9999).map(lambda n: f"{n:04}_step")
)


@given(st.sets(NAMES))
def test_a_database_that_is_behind_or_equal_is_not_newer(ours):
    assert migrations.newer([], ours) == migrations.newer(ours, ours) == []


@given(st.sets(NAMES, min_size=1), NAMES)
def test_one_that_comes_after_all_of_ours_is_newer(ours, one):
    app, name = one
    known = [ours_name for ours_app, ours_name in ours if ours_app == app]
    after = bool(known) and name > max(known)
    assert migrations.newer([*ours, one], ours) == ([f"{app}.{name}"] if after else [])


def test_one_that_ours_stands_for_is_not_newer_whatever_its_number():
    ours = [("projects", "0001_squashed_0065"), ("projects", "0002_b")]
    applied = [*ours, ("projects", "0065_old")]
    assert migrations.newer(applied, ours) == ["projects.0065_old"]
    assert migrations.newer(applied, ours, {("projects", "0065_old")}) == []


def test_one_that_is_renamed_or_gone_or_of_another_app_is_not_newer():
    ours = [("tasks", "0001_squashed_0009"), ("tasks", "0010_b")]
    applied = [("tasks", "0010_b_renamed"), ("tasks", "0002_gone"), ("plugin", "0099_x")]
    assert migrations.newer(applied, ours) == []
