"""The variables of the first user, as far as they can be judged without a database."""

import pytest

from ls_kit import account


def test_defaults():
    assert account.read("", "secret-enough", "") == account.Account(
        email="admin@example.com", password="secret-enough", key="", kind="none"
    )


def test_the_login_form_types_small_letters():
    assert account.read(" Admin@Example.COM ", "", "").email == "admin@example.com"


@pytest.mark.parametrize("name", ["bob", "a b@c", "@", "a@", "x" * 250 + "@a.bc"])
def test_no_address(name):
    with pytest.raises(account.AccountError, match="LABEL_STUDIO_USERNAME: found"):
        account.read(name, "", "")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("", "none"),
        ("a1" * 20, "legacy"),
        ("k" * 16, "legacy"),
        ("eyJhbGciOi.eyJ0eXAi.c2ln-_", "personal"),
    ],
)
def test_kinds_of_token(key, kind):
    assert account.key_kind(key) == kind


@pytest.mark.parametrize(
    "key", ["short", "a" * 15, "a" * 41, "with space in the middle", "a.b.c" * 4]
)
def test_no_token_and_never_repeated(key):
    with pytest.raises(account.AccountError, match=f"found {len(key)} characters") as error:
        account.key_kind(key)
    assert key not in str(error.value)


def test_whitespace_around_a_token_is_none_of_it():
    assert account.read("", "", f" {'a' * 40}\n").key == "a" * 40
