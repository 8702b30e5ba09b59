"""A setting is written once: what follows from the list is made, and what is stale is found."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import yaml

from dev import blocks, chart_docs, settings
from lib import ROOT
from lib.cli import UserError
from ls_yolo.settings import SETTINGS

BEGIN, END = "# begin", "# end"


def copies(tmp_path):
    for part in ("scripts", "backend/ls_yolo", "docs", "compose", "charts", "ansible"):
        skip = shutil.ignore_patterns("__pycache__", "rendered")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=skip)
    return tmp_path


def run(root, *arguments):
    words = [sys.executable, "scripts/dev", "settings", *arguments]
    return subprocess.run(words, cwd=root, capture_output=True, text=True)


def test_everything_says_what_the_list_says():
    assert settings.main(["--check"]) == 0


@pytest.mark.parametrize("path", [*settings.PARTS, chart_docs.SCHEMA])
def test_what_is_stale_is_named_with_the_command_and_made_anew(tmp_path, path):
    root = copies(tmp_path)
    copy = root / path.relative_to(ROOT)
    before = copy.read_text()
    copy.write_text(before.replace("BATCH_SIZE", "BATCH_WIDTH"))
    done = run(root, "--check")
    assert done.returncode == 1
    assert str(path.relative_to(ROOT)) in done.stderr
    assert "Run: " in done.stderr
    assert copy.read_text() != before
    assert run(root).returncode == 0
    assert copy.read_text() == before


def test_a_new_setting_is_everywhere_by_one_command(tmp_path):
    root = copies(tmp_path)
    listed = root / "backend/ls_yolo/settings.py"
    new = 'Setting("BRAND_NEW", "int", "7", "A new one.", ("backend",), minimum=1, maximum=9),\n'
    begin = "SETTINGS: tuple[Setting, ...] = (\n"
    listed.write_text(listed.read_text().replace(begin, f"{begin}    {new}"))
    assert run(root).returncode == 0
    made = {path: (root / path.relative_to(ROOT)).read_text() for path in settings.PARTS}
    assert "| `BRAND_NEW` | `7` | backend | A new one. |" in made[settings.PAGE]
    assert "      BRAND_NEW: ${BRAND_NEW:-}\n" in made[settings.COMPOSE]
    values = yaml.safe_load(made[chart_docs.VALUES])
    assert values["backend"]["env"]["BRAND_NEW"] == "7"
    options = yaml.safe_load(made[settings.SPECS])["argument_specs"]["main"]["options"]
    option = options["ls_yolo_backend_env"]["options"]["BRAND_NEW"]
    assert option == {"type": "int", "description": "A new one.", "default": 7}
    assert "BRAND_NEW" in (root / "charts/ls-yolo/values.schema.json").read_text()


def test_the_role_logs_no_secret():
    secret = {s.name for s in SETTINGS if s.secret}
    assert {s.name for s in SETTINGS if settings.option(s).get("no_log")} == secret


def test_what_stands_around_a_block_is_kept():
    page = f"# Title\n\nabove\n\n{BEGIN}\nold\n{END}\n\nbelow\n"
    new = blocks.refreshed(page, "| new |", "page.md", (BEGIN, END))
    assert new == f"# Title\n\nabove\n\n{BEGIN}\n\n| new |\n\n{END}\n\nbelow\n"


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}\n{BEGIN}"])
def test_a_page_without_its_marks_is_an_error(page):
    with pytest.raises(UserError, match=r"page\.md: expected these two lines"):
        blocks.refreshed(page, "", "page.md", (BEGIN, END))
