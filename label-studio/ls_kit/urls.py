"""The URLs of Label Studio, but for one that would have the server call the internet; and ours.

Django loads this once all of its parts are there, so what is mended in them is mended here."""

# mypy: disable-error-code="import-not-found,import-untyped"

from core.urls import urlpatterns as upstream
from django.http import HttpRequest, JsonResponse
from django.urls import path

from ls_kit import api, local_files, opening, tasks_of_storage
from ls_kit.diagnosis import DiagnosisAPI

local_files.patch()
opening.patch()
tasks_of_storage.patch()


def no_tips(request: HttpRequest) -> JsonResponse:
    """What upstream answers where it cannot fetch its tips, without trying."""
    return JsonResponse({}, status=404)


urlpatterns = [
    path("heidi-tips/", no_tips, name="heidi_tips"),
    *api.urlpatterns,
    path("api/ls-kit/diagnosis", DiagnosisAPI.as_view(), name="ls_kit_diagnosis"),
    *upstream,
]
