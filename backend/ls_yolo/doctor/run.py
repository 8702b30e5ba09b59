"""All checks, in the order in which they are told."""

from __future__ import annotations

from ls_yolo.doctor import projects, services, storage
from ls_yolo.doctor.base import Checks
from ls_yolo.doctor.facts import Facts

CHECKS: Checks[Facts] = Checks([*services.CHECKS, *storage.CHECKS, *projects.CHECKS])
NAMES = tuple(check.name for check in CHECKS)
