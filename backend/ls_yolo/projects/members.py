"""Members of a project, which editions of Label Studio other than Community have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio.client import Studio
from ls_yolo.projects.backend import ApplyError, Say


def edition(studio: Studio) -> str:
    """What this Label Studio calls itself: Community, Enterprise, ..."""
    found: Any = studio.client.versions.get()
    return str(found.model_dump().get("edition") or "Community")


def add(studio: Studio, project: int, wanted: Sequence[str], title: str, say: Say) -> None:
    """Adds users to a project; an edition without members is told of, and left.

    Raises:
        ApplyError: there is no such user.
    """
    if not wanted:
        return
    name = edition(studio)
    if name == "Community":
        say(
            f"{title}: members are left out: Label Studio {name} has none, every user sees every "
            "project"
        )
        return
    api: Any = studio.client
    try:
        users = {str(user.email).lower(): int(user.id) for user in api.users.list()}
        there = {int(user.id) for user in api.projects.members.paginated.list(project)}
        for email in wanted:
            number = users.get(email.lower())
            if number is None:
                raise ApplyError(
                    f"{title}: members: Label Studio has no user {email!r}; invite them first"
                )
            if number not in there:
                api.projects.members.add(project, user=number)
                say(f"{title}: {email} is a member now")
    except (AttributeError, TypeError, ApiError, httpx.HTTPError) as error:
        raise ApplyError(f"{title}: members: {error}") from None
