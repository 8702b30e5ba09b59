"""A team at work in a Label Studio, and all of its work that it would miss."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import requests

SECOND = {"email": "second@example.com", "password": "correct-horse-battery"}
MAKE_TOKEN = f"""
import importlib.util, pathlib, sys
sys.path.insert(0, str(pathlib.Path(importlib.util.find_spec("label_studio").origin).parent))
import django
django.setup()
from rest_framework.authtoken.models import Token
from users.models import User
user = User.objects.get(email="{SECOND["email"]}")
user.set_password("{SECOND["password"]}")
user.save()
print(Token.objects.get_or_create(user=user)[0])
"""
"""Inside Label Studio: gives the second user a password, and prints a token."""


def without_times(value: Any) -> Any:
    """JSON without what says when it was asked for, sorted: PostgreSQL keeps no order of keys."""
    if isinstance(value, dict):
        skip = ("last_activity", "updated_at", "created_ago", "lead_time")
        return {k: without_times(v) for k, v in sorted(value.items()) if k not in skip}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def by_id(found: Any) -> list[Any]:
    return sorted(without_times(found), key=lambda one: one["id"])


@dataclass(frozen=True)
class Work:
    """What is in Label Studio."""

    tasks: list[Any]
    predictions: list[Any]
    users: list[Any]
    upload: bytes


@dataclass(frozen=True)
class Team:
    """Who works in the Label Studio at ``url``."""

    url: str
    token: str

    def fetch(self, path: str) -> bytes:
        answer = requests.get(
            f"{self.url}{path}", timeout=60, headers={"Authorization": f"Token {self.token}"}
        )
        assert answer.ok, answer.text
        return answer.content

    def get(self, path: str) -> Any:
        return json.loads(self.fetch(path))

    def post(self, path: str, **more: Any) -> Any:
        key = {"Authorization": f"Token {self.token}"}
        answer = requests.post(f"{self.url}{path}", timeout=60, headers=key, **more)
        assert answer.ok, answer.text
        return answer.json()

    def begin(self, picture: bytes) -> tuple[int, str]:
        """Annotates a task of the demo, uploads a picture, and takes in a second user.

        Returns:
            The project, and where the upload is.
        """
        (project,) = (p["id"] for p in self.get("/api/projects/")["results"])
        task = self.get(f"/api/tasks/?project={project}")["tasks"][0]["id"]
        value = {"x": 1.5, "y": 2, "width": 30, "height": 40, "rotation": 0}
        result = {
            "type": "rectanglelabels", "from_name": "label", "to_name": "image",
            "original_width": 810, "original_height": 1080,
            "value": {**value, "rectanglelabels": ["bus"]},
        }  # fmt: skip
        self.post(f"/api/tasks/{task}/annotations/", json={"result": [result]})
        answer = self.post(
            f"/api/projects/{project}/import?commit_to_project=true",
            files={"bus upload.jpg": ("bus upload.jpg", picture, "image/jpeg")},
        )
        assert answer["task_count"] == 1
        found = self.get(f"/api/tasks/?project={project}&page_size=100&fields=all")["tasks"]
        (upload,) = (t["data"]["image"] for t in found if "/upload/" in t["data"]["image"])
        self.post("/api/users/", json={**SECOND, "username": "second"})
        return project, upload

    def work(self, upload: str) -> Work:
        tasks = []
        for project in self.get("/api/projects/")["results"]:
            export = f"/api/projects/{project['id']}/export?exportType=JSON&download_all_tasks=true"
            tasks += self.get(export)
        return Work(
            by_id(tasks), by_id(self.get("/api/predictions/")), by_id(self.get("/api/users/")),
            self.fetch(upload),
        )  # fmt: skip

    def log_in(self) -> str:
        """Who the second user is, by the password."""
        page = requests.Session()
        page.get(f"{self.url}/user/login/", timeout=30)
        form = {**SECOND, "csrfmiddlewaretoken": page.cookies["csrftoken"]}
        page.post(f"{self.url}/user/login/", data=form, timeout=30)
        return str(page.get(f"{self.url}/api/current-user/whoami", timeout=30).json()["email"])
