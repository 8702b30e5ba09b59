"""No secret is left in a text: those that are known, and what looks like one."""

from __future__ import annotations

import base64
import html
import json
import time
from urllib.parse import quote

import jwt
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ls_yolo.redaction import REDACTED, SHORTEST, Redactor, without_entries

SECRETS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=SHORTEST, max_size=40)


def coded(secret: str, alphabet: bytes = b"+/") -> str:
    return base64.b64encode(secret.encode(), alphabet).decode()


@given(SECRETS, st.text(max_size=5), st.text(max_size=5),
       st.sampled_from([str, repr, json.dumps, html.escape, quote, lambda s: quote(s).lower(),
                        lambda s: coded(s, b"-_")]))  # fmt: skip
@example("redacted", "", "", str)
@example("a/b?c=d", "x", "", lambda s: quote(s, safe="").replace("%2F", "%2f"))
def test_a_known_secret_is_not_found_again_in_any_spelling(secret, before, after, spell):
    redactor = Redactor([secret])
    text = before + spell(secret) + after
    assert redactor.finds(before + secret)
    assert not redactor.finds(redactor(text))
    assert not redactor.finds(redactor(redactor(text)))


@given(SECRETS, st.text(max_size=9), st.text(max_size=9))
def test_a_password_is_found_in_base64_whatever_stands_before_and_after_it(secret, before, after):
    text = coded(before + secret + after)
    assert Redactor([secret]).finds(text)
    assert not Redactor([secret]).finds(Redactor([secret])(text))


TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCDEF0123456789", min_size=16, max_size=40)


@given(
    TOKENS,
    st.sampled_from(
        [
            "Authorization: Token {}",
            "authorization: Basic {}",
            "{{'Authorization': 'Bearer {}'}}",
            '{{"authorization":"{}"}}',
            "proxy-authorization={}",
            "http://host/a.jpg?token={}&x=1",
            "http://host/a.jpg?x=1&X-Amz-Signature={}",
            "http://host/a.jpg?X-Amz-Security-Token={}&y",
            "http://host/a.jpg?sv=1&sig={}",
            "access_token={}",
            "API_KEY={}",
            '{{"access_token": "{}"}}',
            "{{'password': '{}', 'user': 'a'}}",
            "http://user:{}@host/",
            "s3://{}:x@bucket/a.jpg",
            "http://user:p@{}@host/",
            "Set-Cookie: sid={}; Path=/",
            r"{{\"Cookie\": \"a=1; other={}\"}}",
            "https://qyapi.example.com/cgi-bin/webhook/send?key={}",
            "https://bucket.example.com/a.jpg?OSSAccessKeyId=x&Signature={}",
            "BASIC_AUTH_PASS={}",
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
        ],
    ),
)
def test_what_looks_like_a_secret_does_not_appear_although_nobody_told(token, form):
    assert token not in Redactor()(form.format(token))


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10) | st.integers(), max_size=5))
def test_no_web_token_appears(claims):
    token = jwt.encode(claims, "a key of thirty-two bytes or more", "HS256")
    for text in (token, f"401 for {token}: expired", token[: len(token) // 2], f"x{token}"):
        clean = Redactor()(text)
        assert token[: len(token) // 2] not in clean
        assert token.split(".")[1] not in clean


@pytest.mark.parametrize(
    "text",
    [
        "task 7: empty prediction: 'demo/a.jpg': not found in /datasets",
        "the backend has no token; set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY",
        "authentication is needed: BASIC_AUTH_USER and BASIC_AUTH_PASS of .env",
        "http://label-studio:8080/data/upload/1/a.jpg?x=1",
        "loaded yolov8n@0123456789ab from /models/yolov8n.pt: 80 classes",
        "https://bucket.example.com:9000/a@b.jpg",
        "https://bucket.example.com?mail=a@b.example",
        "3 passed=3, a monkey=1",
    ],
)
def test_what_is_no_secret_stays(text):
    assert Redactor(["0123456789abcdef0123", "abc"])(text) == text


def test_a_long_word_is_looked_through_at_once():
    began = time.perf_counter()
    assert Redactor()("a" * 20_000 + "?mytoken=abc") == "a" * 20_000 + f"?mytoken={REDACTED}"
    assert time.perf_counter() - began < 2  # from every letter of it anew, a minute


# Files

PROJECT = """\
title: Ship  # no secret
source_storages:
  - type: s3
    bucket: ship
    access_key_id: ${S3_ID}
    secret_access_key: %(a)s
    region: eu
  - {type: azure, container: c, account_key: %(b)s, presign: false}
  - type: gcs
    google_application_credentials: |
      {"type": "service_account",
       "private_key": "%(c)s"}
    bucket: other
webhooks:
  - url: https://example.com/hook
    headers:
      X-Mine: %(d)s
    actions: [TASK_CREATED]
  - {url: "https://example.com", headers: {X-Mine: %(e)s,
      X-Too: %(f)s}}
# session_token: %(g)s
label_config: |
  <View><Label value="token"/></View>
"""


def test_what_stands_in_a_file_under_the_name_of_a_secret_is_gone_and_all_else_stays():
    planted = {name: f"plain-{name}-words" for name in "abcdefg"}
    clean = without_entries(PROJECT % planted)
    assert not [secret for secret in planted.values() if secret in clean]
    for kept in (
        "title: Ship  # no secret", "bucket: ship", "access_key_id: ${S3_ID}", "region: eu",
        "container: c", "bucket: other", "https://example.com/hook", "actions: [TASK_CREATED]",
        '<Label value="token"/>',
    ):  # fmt: skip
        assert kept in clean


NAMES = (
    "secret_access_key",
    "account_key",
    "session_token",
    "password",
    "Authorization",
    "X-Api-Key",
)


@given(
    st.sampled_from(NAMES), st.from_regex(r"[A-Za-z0-9 :#,'\"{}\\]{8,30}", fullmatch=True),
    st.sampled_from(["block", "flow"]), st.sampled_from([None, "'", '"', "|", ">"]),
)  # fmt: skip
def test_a_secret_is_gone_from_a_file_in_whatever_style_it_is_written(name, secret, style, quotes):
    text = yaml.safe_dump(
        [{"type": "s3", name: secret, "z": 1}], default_flow_style=style == "flow", width=20,
        sort_keys=False, default_style=quotes,
    )  # fmt: skip
    clean = without_entries(text)
    for line in clean.splitlines():
        assert secret not in line
    words = [word for word in secret.split() if len(word) > 6]
    assert not [word for word in words if word in clean]
