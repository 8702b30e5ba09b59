"""Nobody is shown an empty Label Studio because a setting has changed."""

from __future__ import annotations

import pytest

from host import database
from host.checks import OK, STOP

SQLITE, POSTGRES = "mine_label-studio-data", "mine_postgres-data"


@pytest.mark.parametrize(
    ("wanted", "volumes", "state", "fix"),
    [
        (False, set(), OK, ""),
        (True, set(), OK, ""),
        (False, {SQLITE}, OK, ""),
        (True, {SQLITE, POSTGRES}, OK, ""),
        (True, {SQLITE}, STOP, "To keep them as they are: POSTGRES=0"),
        (False, {SQLITE, POSTGRES}, STOP, "To keep them as they are: POSTGRES=1 in .env"),
        (True, {"other_label-studio-data"}, OK, ""),
    ],
)
def test_a_change_of_the_database_is_refused_where_one_has_data(wanted, volumes, state, fix):
    told = database.check(wanted, "mine", volumes)
    assert told.state == state
    assert told.fix.startswith(fix)
