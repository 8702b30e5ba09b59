"""The first user, its organization and its API token: made once, repaired at each start.

Upstream reads its variables for these only while it makes the user, and a token of the usual kind
only counts if the organization was made with it. Here the start looks at what is there and puts
right what the kit needs, so a token that was reset in the page, or a start that was cut off, heals
itself. What a person may change stays changed: the password is set when the user is made and never
again.
"""

# Django and Label Studio are there in the image, not where this is checked.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

DEFAULT_USERNAME = "admin@example.com"
KEY_LENGTHS = (16, 40)  # 40 is what the table holds; fewer than 16 could be guessed

_LEGACY_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PERSONAL_KEY = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

KeyKind = Literal["none", "legacy", "personal"]


class AccountError(ValueError):
    """A variable cannot be used; the message names it, what was found and the fix."""


@dataclass(frozen=True)
class Account:
    """Whom the kit acts as. Made by :func:`read`, so its values have been checked."""

    email: str
    password: str
    key: str
    kind: KeyKind


def key_kind(key: str) -> KeyKind:
    """What sort of token ``key`` is.

    Raises:
        AccountError: it is none that Label Studio would take. The token itself is not repeated.
    """
    if not key:
        return "none"
    if _PERSONAL_KEY.fullmatch(key):
        return "personal"
    low, high = KEY_LENGTHS
    if _LEGACY_KEY.fullmatch(key) and low <= len(key) <= high:
        return "legacy"
    raise AccountError(
        f"LABEL_STUDIO_API_KEY: found {len(key)} characters, expected a Personal Access Token or "
        f"{low} to {high} letters and digits; `openssl rand -hex 20` prints one"
    )


def read(username: str, password: str, key: str) -> Account:
    """The account that three variables ask for.

    Raises:
        AccountError: one of them cannot be used.
    """
    # Label Studio's login form writes what is typed in small letters, and then compares exactly.
    email = (username.strip() or DEFAULT_USERNAME).lower()
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", email) or len(email) > 254:
        raise AccountError(
            f"LABEL_STUDIO_USERNAME: found {username!r}, expected an e-mail address such as "
            f"{DEFAULT_USERNAME}"
        )
    key = key.strip()
    return Account(email=email, password=password, key=key, kind=key_kind(key))


def _make_user(account: Account) -> Any:
    from django.contrib.auth.password_validation import validate_password
    from django.core.exceptions import ValidationError
    from django.core.validators import validate_email
    from users.models import User

    try:
        validate_email(account.email)
    except ValidationError:
        raise AccountError(
            f"LABEL_STUDIO_USERNAME: found {account.email!r}, expected an e-mail address that "
            f"Label Studio's login form takes, such as {DEFAULT_USERNAME}"
        ) from None
    if not account.password:
        raise AccountError(no_password(account.email))
    try:
        validate_password(account.password, User(email=account.email))
    except ValidationError as error:
        raise AccountError(f"LABEL_STUDIO_PASSWORD: {' '.join(error.messages)}") from None
    user = User.objects.create_user(
        email=account.email, password=account.password, is_staff=True, is_superuser=True
    )
    print(f"label-studio: made the user {account.email}", flush=True)
    return user


def no_password(email: str) -> str:
    return (
        f"LABEL_STUDIO_PASSWORD: found none, and the user {email} is still to be made. "
        "Set it to 8 characters or more; `openssl rand -hex 12` prints one"
    )


def _organization(user: Any, account: Account) -> Any:
    """The organization that the user acts in, with the user in it."""
    from organizations.models import Organization, OrganizationMember

    organization = user.active_organization
    if organization is None or not organization.has_permission(user):
        organization = Organization.objects.order_by("pk").first()
    if organization is None:
        organization = Organization.create_organization(
            created_by=user,
            title="Label Studio",
            legacy_api_tokens_enabled=account.kind == "legacy",
        )
    OrganizationMember.objects.update_or_create(
        user=user, organization=organization, defaults={"deleted_at": None}
    )
    if user.active_organization_id != organization.pk:
        user.active_organization = organization
        user.save(update_fields=["active_organization"])
    return organization


def _token(user: Any, organization: Any, key: str) -> None:
    """Makes ``key`` the user's token, and one that the organization takes."""
    from rest_framework.authtoken.models import Token

    if not organization.jwt.legacy_api_tokens_enabled:
        organization.jwt.legacy_api_tokens_enabled = True
        organization.jwt.save()
        print("label-studio: switched on API tokens for the organization", flush=True)
    owner = Token.objects.filter(key=key).select_related("user").first()
    if owner is not None and owner.user_id != user.pk:
        raise AccountError(
            f"LABEL_STUDIO_API_KEY: is the token of {owner.user.email}, not of {user.email}. "
            "Set LABEL_STUDIO_USERNAME to that user, or take another token"
        )
    if owner is None:
        # The key is the table's primary key: a row with another key is another row.
        Token.objects.filter(user=user).delete()
        Token.objects.create(user=user, key=key)
        print(f"label-studio: set the API token of {user.email}", flush=True)


def ensure(account: Account) -> None:
    """Makes what is missing and repairs what the kit needs; changes nothing the second time.

    Raises:
        AccountError: what is asked for contradicts what is there.
    """
    from django.db import transaction
    from users.models import User

    with transaction.atomic():
        found = User.objects.filter(email__iexact=account.email).order_by("pk")
        user = found.filter(email=account.email).first() or found.first() or _make_user(account)
        organization = _organization(user, account)
        if account.kind == "legacy":
            _token(user, organization, account.key)
    if not user.is_active:
        print(
            f"label-studio: warning: the user {user.email} is switched off in Label Studio, so its "
            "token is refused",
            flush=True,
        )
