"""Whether the address that people open leads to Label Studio, and takes its forms.

Asked as a browser does, through whatever proxy stands there. The standard library alone: the host
runs it as ``python3 -m ls_yolo.doctor.address URL``, which prints a JSON object a line.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict
from http.client import HTTPException
from http.cookiejar import CookieJar
from urllib.parse import urlencode, urljoin, urlsplit

from ls_yolo.doctor import certificates
from ls_yolo.doctor.base import Finding, Level, failed, ok

TIMEOUT = 10
FORMS = (
    "set LABEL_STUDIO_HOST to the address that people open, with its scheme, or name it in "
    "CSRF_TRUSTED_ORIGINS, and run make up; the proxy must pass Host on"
)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing: where it leads is what is looked at."""

    def redirect_request(self, *_: object) -> None:
        return None


def look(url: str, timeout: float = TIMEOUT) -> list[Finding]:
    """What is wrong with ``url`` as the address that people open, or that all is well."""
    url = url.rstrip("/")
    jar = CookieJar()
    browser = urllib.request.build_opener(
        _Stay, urllib.request.HTTPCookieProcessor(jar), urllib.request.ProxyHandler({})
    )

    def ask(path: str, form: dict[str, str] | None = None) -> tuple[int, str, bytes]:
        """Status, where it sends to, and the first bytes of an answer."""
        parts = urlsplit(url)
        headers = {"User-Agent": "ls-yolo doctor"}
        if form is not None:
            headers |= {"Origin": f"{parts.scheme}://{parts.netloc}", "Referer": url + path}
        data = None if form is None else urlencode(form).encode()
        try:
            with browser.open(
                urllib.request.Request(url + path, data, headers), timeout=timeout
            ) as answer:
                return answer.status, "", answer.read(1_000_000)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers.get("Location") or "", error.read(100_000)

    try:
        status, _, body = ask("/health")
        if status != 200 or b'"UP"' not in body:
            return [
                failed(
                    f"something else than Label Studio answers there, status {status}",
                    "correct the address, or where the proxy passes it on to",
                    url,
                )
            ]
        status, there, _ = ask("/")
        leads = urlsplit(urljoin(url + "/", there))
        if there and leads.netloc != urlsplit(url).netloc:
            return [
                failed(
                    f"people are sent on to {leads.scheme}://{leads.netloc}",
                    "set LABEL_STUDIO_HOST to the address that people open",
                    url,
                )
            ]
        ask("/user/login/")
        token = next((cookie.value or "" for cookie in jar if cookie.name == "csrftoken"), "")
        # Empty, so that it is nobody's log-in: the form comes again where it is taken at all.
        form = {"csrfmiddlewaretoken": token, "email": "", "password": ""}
        status, _, _ = ask("/user/login/", form)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        return [failed(f"not reached: {reason}", "is the proxy up, and does the name resolve here?",
                       url, unsure=True)]  # fmt: skip
    if status == 403:
        return [failed("forms are refused (CSRF), so nobody can log in", FORMS, url)]
    if status != 200:
        return [failed(f"the form to log in is answered with {status}", "make logs", url)]
    return [ok("leads to Label Studio, and forms are taken", url)]


def main(arguments: Sequence[str]) -> int:
    code = 0
    for url in arguments:
        for name, findings in (("address", look(url)), ("certificates", certificates.look(url))):
            for found in findings:
                row = asdict(found) | {"level": Level(found.level).name.lower()}
                print(json.dumps({"check": name, "seconds": 0, **row}))
                code = max(code, int(found.level))
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
