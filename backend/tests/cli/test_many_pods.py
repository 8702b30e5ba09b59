"""What pods are called with by `ls-yolo prelabel --kubernetes`."""

from __future__ import annotations

import pytest

from ls_yolo.cli import main, many_pods
from ls_yolo.cli.common import ToolError


def test_what_is_given_reaches_the_pods_and_nothing_else(tmp_path):
    assert many_pods.words("", "", False, False, "") == []
    assert many_pods.words("a+b", "view:Night", True, True, "http://push") == [
        "--model", "a+b", "--where", "view:Night", "--metrics", "http://push", "--retry",
        "--fields",
    ]  # fmt: skip


def test_a_filter_in_a_file_is_read_here(tmp_path):
    (tmp_path / "filter.json").write_text('{"items": []}')
    found = many_pods.words("", f"@{tmp_path}/filter.json", False, False, "")
    assert found == ["--where", '{"items": []}']
    with pytest.raises(ToolError, match=r"--where: /nowhere: .*No such file"):
        many_pods.words("", "@/nowhere", False, False, "")


@pytest.mark.parametrize("content", [b"id > 7", b'{"items": [7]}', b"\xff"])
def test_a_faulty_filter_is_refused_before_there_is_a_pod(content, tmp_path):
    (tmp_path / "filter.json").write_bytes(content)
    with pytest.raises(ToolError, match="--where: "):
        many_pods.words("", f"@{tmp_path}/filter.json", False, False, "")


@pytest.mark.parametrize(
    "words",
    [["--shard", "0/2"], ["--replace"], ["--report", "a.html"], ["--metrics", "/data/a.prom"]],
)
def test_what_does_not_go_with_pods_is_a_wrong_call(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["prelabel", "Yard", "--kubernetes", "2", *words])
    assert ended.value.code == 2
    assert "--kubernetes" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_an_error_for_people(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main.main(["prelabel", "Yard", "--kubernetes", "2"]) == 1
    assert "error: found no kubectl" in capsys.readouterr().err
