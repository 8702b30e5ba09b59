"""Values: what Label Studio's page resolves (its `parseValue`), resolved the same way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.labelstudio.values import resolve, where

KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
DATA = {
    "image": "a.jpg",
    "photo": {"url": "b.jpg", "sizes": [1, 2]},
    "images": ["c.jpg", "d.jpg"],
    "pages": [{"url": "e.jpg"}],
    "a.b": "f.jpg",
    "n": 7,
    "yes": True,
}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("$image", "a.jpg"),
        ("$photo.url", "b.jpg"),
        ("$images[1]", "d.jpg"),
        ("$images.1", "d.jpg"),
        ("$images", ["c.jpg", "d.jpg"]),
        ("$pages[0].url", "e.jpg"),
        ("$a.b", "f.jpg"),  # as a storage writes it, for want of a better key
        ("/data/local-files/?d=x/$image", "/data/local-files/?d=x/a.jpg"),
        ("$image?n=$n&y=$yes", "a.jpg?n=7&y=true"),
        ("x/$images", "x/c.jpg,d.jpg"),
        ("https://example.com/a.jpg", "https://example.com/a.jpg"),
        ("$\u56fe", "$\u56fe"),  # no reference to the page, so none here
        ("$none", None),
        ("$images[2]", None),
        ("$image.url", None),
        ("$photo.url.more", None),
        ("x/$none", None),
        ("$", "$"),
        ("", ""),
    ],
)
def test_a_value_is_what_the_page_shows(value, found):
    assert resolve(value, DATA) == found


@given(st.text(), JSON)
def test_any_value_of_any_data_is_resolved_without_an_error(value, data):
    resolve(value, data)
    resolve(f"${value}", data)


@given(st.lists(KEYS | st.integers(0, 3), min_size=1, max_size=5), st.text())
def test_what_is_at_a_path_is_found_by_it(path, item):
    first, *rest = ["key", *path]
    data = item
    for step in reversed(rest):
        data = {step: data} if isinstance(step, str) else [None] * step + [data]
    written = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)
    assert resolve(f"${first}{written}", {first: data}) == item
    assert resolve(f"/x/${first}{written}", {first: data}) == f"/x/{item}"


@given(st.text().filter(lambda text: "$" not in text), JSON)
def test_a_text_without_a_reference_is_itself(text, data):
    assert resolve(text, data) == text


def test_a_reference_is_named_as_the_data_it_refers_to():
    assert where("$photo.url") == "data.photo.url"
    assert where("a/$image") == "a/$image"
