"""The URLs of Label Studio, but for those that would have the server or the browser call the
internet; and ours.

Django loads this once all of its parts are there, so what is mended in them is mended here."""

# mypy: disable-error-code="import-not-found,import-untyped"

from core.urls import urlpatterns as upstream
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from ls_kit import api, local_files, opening, tasks_of_storage
from ls_kit.diagnosis import DiagnosisAPI

local_files.patch()
opening.patch()
tasks_of_storage.patch()


def no_tips(request: HttpRequest) -> JsonResponse:
    """What upstream answers where it cannot fetch its tips, without trying."""
    return JsonResponse({}, status=404)


# Upstream's pages run whatever a public CDN has as the newest version of a script.
API_DOCS = """<!doctype html>
<title>Label Studio's API</title>
<p>The API is described, in the form of OpenAPI, in
<a href="/docs/api/schema/json/">/docs/api/schema/json/</a> and
<a href="/docs/api/schema/yaml/">/docs/api/schema/yaml/</a>.
Pages that show it would fetch scripts and fonts from other hosts, so there are none here.
"""


def api_docs(request: HttpRequest) -> HttpResponse:
    """Where the API is described."""
    return HttpResponse(API_DOCS)


urlpatterns = [
    path("heidi-tips/", no_tips, name="heidi_tips"),
    path("docs/api/schema/redoc/", api_docs, name="redoc"),
    path("docs/api/schema/swagger-ui/", api_docs, name="swagger-ui"),
    *api.urlpatterns,
    path("api/ls-kit/diagnosis", DiagnosisAPI.as_view(), name="ls_kit_diagnosis"),
    *upstream,
]
