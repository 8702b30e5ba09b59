"""`make support`: what is known to be a secret is in no member, and what fails is a line."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import support
from lib import ROOT
from lib.cli import UserError
from ls_yolo.redaction import REDACTED, Redactor

SECRETS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=8, max_size=30)
SPELLINGS = [str, repr, json.dumps, quote, lambda s: base64.b64encode(f"me:{s}".encode()).decode()]


def texts(archive: Path) -> dict[str, str]:
    """The members, by their names below the archive's own folder."""
    with tarfile.open(archive) as tar:
        found = {}
        for member in tar:
            assert member.mode == 0o600
            data = tar.extractfile(member)
            assert data is not None
            found[member.name.partition("/")[2]] = data.read().decode()
    return found


@given(SECRETS, st.sampled_from(SPELLINGS), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_is_in_no_member_however_it_is_spelled(secret, spell, before, after):
    redactor = Redactor([secret])
    text = before + spell(secret) + after
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "ls-yolo-support-1.tar.gz")
        list(support.write(target, [("first.txt", text), ("logs/a.log", text * 2)], redactor))
        found = texts(target)
    assert list(found) == ["first.txt", "logs/a.log"]
    for text in found.values():
        assert not redactor.finds(text)
        assert secret not in text.replace(REDACTED, "\0")
        assert spell(secret) not in text.replace(REDACTED, "\0")


class Forgetful(Redactor):
    """Knows the secrets and takes none out, as a fault of the kit would."""

    def __call__(self, text: str) -> str:
        return text


def test_where_a_secret_is_left_the_member_is_named_and_there_is_no_archive(tmp_path):
    members = [("fine.txt", "fine"), ("logs/backend.log", "a horse-battery b")]
    with pytest.raises(UserError, match=r"logs/backend\.log: a secret .* no archive was made"):
        list(support.write(tmp_path / "a.tar.gz", members, Forgetful(["horse-battery"])))
    assert not list(tmp_path.iterdir())


def test_what_is_a_secret_is_known_by_the_settings_by_its_name_and_by_urls():
    found = support.known_secrets(
        [
            {"BASIC_AUTH_PASS": "of-settings", "CSRF_TRUSTED_ORIGINS": "https://a.example.com",
             "PIP_INDEX_URL": "https://me:of%2Furl@pypi.example.com/simple",
             "TORCH_INDEX": "https://of-token@torch.example.com"},
            {"POSTGRE_PASSWORD": "of-container", "PROJECT_SECRETS": "S3=of-setup",
             "HTTP_PROXY": "http://me:of-proxy@proxy:3128", "PATH": "/bin"},
        ],
        "S3_KEY=of-projects\n# OLD='of-before'\nof-a-faulty-line\n\nEMPTY=\n",
    )  # fmt: skip
    assert {text for text in found if text.startswith("of")} == {
        "of-settings", "of%2Furl", "of/url", "of-token", "of-container", "of-setup", "of-proxy",
        "of-projects", "of-before", "of-a-faulty-line",
    }  # fmt: skip
    kept = "https://a.example.com /bin me pypi.example.com CSRF_TRUSTED_ORIGINS"
    assert Redactor(found)(kept) == kept


def run(folder: Path, **environ: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """The script where no docker client is, and what it made."""
    done = subprocess.run(
        [sys.executable, "scripts/support.py", "--to", str(folder / "out")], cwd=ROOT, text=True,
        capture_output=True,
        env={"PATH": str(folder), "LS_YOLO_ENV_FILE": str(folder / ".env"),
             "DOCKER_HOST": f"unix://{folder}/none.sock", **environ},
    )  # fmt: skip
    made = list((folder / "out").glob("*")) if (folder / "out").exists() else []
    return done, texts(made[0]) if made else {}


def test_without_docker_and_without_settings_it_is_made_and_says_what_is_not_there(tmp_path):
    folders = dict.fromkeys(("MODELS_DIR", "PROJECTS_DIR"), "examples")
    done, found = run(tmp_path, **folders)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("versions.txt", "settings.txt", "models/models.yaml", "projects/demo.yaml",
                 "containers.txt", "backend/health.txt", "preflight.txt"):  # fmt: skip
        assert found[name], name
    assert found["images.txt"].startswith("not there: no docker client was found")
    assert "found no .env" in found["doctor.txt"]
    (made,) = (tmp_path / "out").iterdir()
    assert made.stat().st_mode & 0o777 == 0o600
    assert all(name in done.stdout for name in found)
    assert "Look before you send it" in done.stdout


def test_secrets_of_every_place_are_in_none_of_it(tmp_path):
    projects = tmp_path / "projects"
    projects.mkdir()
    planted = [f"planted-{number}-{'x' * number}" for number in range(8)]
    (tmp_path / ".env").write_text(
        f"BASIC_AUTH_PASS={planted[0]}\nPROJECTS_DIR={projects}\nMY_TOKEN={planted[1]}\n"
        f"PIP_INDEX_URL=https://me:{planted[2]}@pypi.example.com/simple\n"
        f"LABEL_STUDIO_HOST=http://labels.example.com/{planted[0]}\n"
    )
    (projects / "secrets.env").write_text(f"S3_SECRET={planted[3]}\n")
    (projects / f"{planted[3]}.yaml").write_text(
        f"title: {planted[3]} {planted[7]}\nwebhooks: [{{url: 'http://a:{planted[4]}@b', headers: "
        f"{{X: {planted[5]}}}}}]\nsource_storages:\n- secret_access_key: {planted[6]}\n"
    )
    done, found = run(tmp_path, LABEL_STUDIO_API_KEY=planted[7])
    assert done.returncode == 0, done.stdout + done.stderr
    everything = json.dumps(found) + done.stdout + done.stderr
    assert [secret for secret in planted if secret in everything] == []
    assert f"projects/{REDACTED}.yaml" in found
    for name, source in (("BASIC_AUTH_PASS", ".env"), ("LABEL_STUDIO_API_KEY", "environment")):
        assert f"{name:26} {source}  ***\n" in found["settings.txt"]
    assert "pypi.example.com/simple" in found["settings.txt"]


def test_settings_that_cannot_be_read_end_it_since_their_secrets_would_not_be_known(tmp_path):
    (tmp_path / ".env").write_bytes(b"BASIC_AUTH_PASS=\xff\n")
    done, found = run(tmp_path)
    assert (done.returncode, found) == (1, {})
    assert "cannot be read as text" in done.stderr


def test_a_section_that_fails_is_a_line():
    def refuse() -> str:
        raise UserError("found no .env")

    assert support.text_of(refuse) == "not there: found no .env\n"
    assert support.text_of(lambda: str(1 // 0)).startswith("not there: ZeroDivisionError")


def test_of_a_long_text_whole_lines_of_its_end_stay(monkeypatch):
    monkeypatch.setattr(support, "MOST", 10)
    assert support.text_of(lambda: "first\nsecond\nthird\n") == "third\n"
    assert support.text_of(lambda: "short\n") == "short\n"


def test_a_command_says_how_it_ended_and_one_that_takes_too_long_goes_with_its_children():
    assert support.said(["sh", "-c", "echo out; echo err >&2; exit 3"]) == "out\nerr\nexit code 3\n"
    began = time.monotonic()
    assert (
        support.said(["sh", "-c", "echo out; sleep 60 & wait"], 0.5) == "out\nstopped after 0.5 s\n"
    )
    assert time.monotonic() - began < 10
