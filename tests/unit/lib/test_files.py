"""Files come into being whole, for their owner alone."""

from __future__ import annotations

import pytest

from lib import files


def test_a_file_has_its_name_once_it_is_whole_and_is_its_owners_alone(tmp_path):
    target = tmp_path / "a.tar.gz"
    with files.appearing(target) as file:
        file.write(b"all of it")
        assert not target.exists()
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert target.read_bytes() == b"all of it"
    assert target.stat().st_mode & 0o777 == 0o600


def test_of_a_file_that_fails_nothing_stays(tmp_path):
    with pytest.raises(ZeroDivisionError), files.appearing(tmp_path / "a") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
