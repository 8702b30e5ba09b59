"""What needs Label Studio itself. By unittest, because the image has no pytest:

docker run --rm -v "$PWD/label-studio/tests:/tests:ro" -w /tests --entrypoint python \
    ls-yolo/label-studio:<version> -m unittest -v test_in_image
"""

import ast
import importlib.util
import inspect
import os
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

IN_IMAGE = importlib.util.find_spec("label_studio") is not None
KEY = "0123456789abcdef0123456789abcdef01234567"
PASSWORD = "a-password-for-tests"


def setUpModule():
    """An empty database from the template, in a folder of the test's own."""
    if not IN_IMAGE:
        raise unittest.SkipTest(f"runs inside the image only: {' '.join(__doc__.split()[11:])}")
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    os.environ.update(
        BASE_DATA_DIR=folder.name,
        DJANGO_SETTINGS_MODULE="ls_kit.settings",
        SSRF_ALLOWED_HOSTS="localhost,10.1.2.3",
        LABEL_STUDIO_HOST="https://labels.example.com/prefix",
        SESSION_COOKIE_SECURE="false",
    )
    from ls_kit import entrypoint

    assert entrypoint.place_template(Path(folder.name) / "label_studio.sqlite3")
    spec = importlib.util.find_spec("label_studio")
    sys.path.insert(0, str(Path(spec.origin).parent))
    import django

    django.setup()


class Ssrf(unittest.TestCase):
    def test_our_copy_of_the_list_is_upstreams(self):
        from core.utils import io

        from ls_kit.ssrf import DEFAULT_BANNED

        tree = ast.parse(textwrap.dedent(inspect.getsource(io.validate_ip)))
        found = [
            ast.literal_eval(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "default_banned_subnets"
        ]
        self.assertEqual(found, [list(DEFAULT_BANNED)])

    def test_upstream_asks_our_list(self):
        from core.utils.exceptions import SsrfBlockedUrlError
        from core.utils.io import validate_ip
        from django.conf import settings

        self.assertTrue(settings.SSRF_PROTECTION_ENABLED)
        self.assertTrue(settings.ML_BLOCK_LOCAL_IP)
        validate_ip("10.1.2.3")
        validate_ip("93.184.215.14")
        for address in ("10.1.2.2", "10.1.2.4", "127.0.0.1", "::1", "169.254.169.254", "fe80::1"):
            with self.subTest(address), self.assertRaises(SsrfBlockedUrlError):
                validate_ip(address)


class Settings(unittest.TestCase):
    def test_what_is_off_is_off(self):
        from django.conf import settings

        self.assertEqual(settings.SETTINGS_MODULE, "ls_kit.settings")
        self.assertTrue(settings.DISABLE_SIGNUP_WITHOUT_LINK)
        for name in (
            "DEBUG",
            "COLLECT_ANALYTICS",
            "LATEST_VERSION_CHECK",
            "SENTRY_DSN",
            "FRONTEND_SENTRY_DSN",
            "USE_NGINX_FOR_UPLOADS",
            "CORS_ALLOW_ALL_ORIGINS",
        ):
            self.assertFalse(getattr(settings, name), name)

    def test_the_address_that_people_open_may_post_forms(self):
        from django.conf import settings

        self.assertEqual(settings.CSRF_TRUSTED_ORIGINS, ["https://labels.example.com"])
        self.assertEqual(settings.FORCE_SCRIPT_NAME, "/prefix")
        # SESSION_COOKIE_SECURE was set by hand, in words: that wins over the https of the address.
        self.assertFalse(settings.SESSION_COOKIE_SECURE)

    def test_sqlite_waits_for_its_turn(self):
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            self.assertEqual(cursor.fetchone()[0], "wal")
            cursor.execute("PRAGMA busy_timeout")
            self.assertEqual(cursor.fetchone()[0], 30000)
        self.assertEqual(connection.transaction_mode, "IMMEDIATE")

    def test_the_template_is_up_to_date_and_holds_nobody(self):
        from django.core.management import call_command
        from django.db import connection
        from organizations.models import Organization
        from rest_framework.authtoken.models import Token
        from users.models import User

        call_command("migrate", check_unapplied=True, verbosity=0)  # exits if there are any
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM django_migrations")
            self.assertGreater(cursor.fetchone()[0], 100)
        for model in (User, Organization, Token):
            self.assertEqual(model.objects.count(), 0, model)


class Account(unittest.TestCase):
    """Each test finds an empty database and leaves one."""

    def setUp(self):
        from django.db import transaction

        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.addCleanup(self.leave)

    def leave(self):
        from django.db import transaction

        transaction.set_rollback(True)
        self.atomic.__exit__(None, None, None)

    def ensure(self, username="", password=PASSWORD, key=KEY):
        from ls_kit import account

        account.ensure(account.read(username, password, key))

    def user(self, email="admin@example.com"):
        from users.models import User

        return User.objects.get(email=email)

    def test_made_once(self):
        from organizations.models import Organization
        from rest_framework.authtoken.models import Token

        for _ in range(2):
            self.ensure()
            user = self.user()
            self.assertTrue(user.check_password(PASSWORD) and user.is_superuser)
            self.assertEqual(Token.objects.get().key, KEY)
            organization = Organization.objects.get()
            self.assertEqual(user.active_organization, organization)
            self.assertTrue(organization.has_permission(user))
            self.assertTrue(organization.jwt.legacy_api_tokens_enabled)

    def test_a_changed_password_stays(self):
        self.ensure()
        user = self.user()
        user.set_password("changed-by-a-person")
        user.save()
        self.ensure()
        self.assertTrue(self.user().check_password("changed-by-a-person"))
        self.ensure(password="")

    def test_what_was_broken_is_repaired(self):
        from organizations.models import OrganizationMember

        self.ensure()
        user = self.user()
        user.reset_token()
        organization = user.active_organization
        organization.jwt.legacy_api_tokens_enabled = False
        organization.jwt.save()
        OrganizationMember.objects.get(user=user).soft_delete()
        self.ensure()
        user = self.user()
        self.assertEqual(user.get_token().key, KEY)
        self.assertEqual(user.active_organization, organization)
        self.assertTrue(user.active_organization.has_permission(user))
        self.assertTrue(type(organization.jwt).objects.get().legacy_api_tokens_enabled)

    def test_a_personal_access_token_leaves_tokens_alone(self):
        self.ensure(key="eyJhbGciOi.eyJ0eXAi.c2ln")
        user = self.user()
        own = user.get_token().key
        self.assertFalse(user.active_organization.jwt.legacy_api_tokens_enabled)
        self.ensure(key="")
        self.assertEqual(self.user().get_token().key, own)

    def test_the_token_of_somebody_else(self):
        from ls_kit.account import AccountError

        self.ensure()
        with self.assertRaisesRegex(AccountError, "is the token of admin@example.com"):
            self.ensure(username="second@example.com")

    def test_a_second_user_joins_the_organization(self):
        from organizations.models import Organization

        self.ensure()
        self.ensure(username="second@example.com", key="b" * 40)
        self.assertEqual(
            self.user("second@example.com").active_organization.pk, Organization.objects.get().pk
        )

    def test_passwords_that_label_studio_would_refuse(self):
        from ls_kit.account import AccountError

        for password in ("", "short"):
            with (
                self.subTest(password),
                self.assertRaisesRegex(AccountError, "^LABEL_STUDIO_PASSWORD"),
            ):
                self.ensure(password=password)


class LocalFiles(unittest.TestCase):
    def test_a_name_that_is_no_utf8_is_left_out_and_named_and_the_rest_goes_on(self):
        from io_storages.localfiles.models import LocalFilesImportStorage

        import ls_kit.urls  # noqa: F401 - as Django loads it

        with tempfile.TemporaryDirectory() as folder:
            for name in (b"a.jpg", b"caf\xe9.jpg", b"b.jpg"):
                Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
            storage = LocalFilesImportStorage(path=folder)
            with self.assertLogs("ls_kit.local_files", "WARNING") as caught:
                found = [Path(key).name for key in storage.iter_keys()]
        self.assertEqual(found, ["a.jpg", "b.jpg"])
        self.assertIn("caf\\xe9.jpg: left out, since its name is not UTF-8", caught.output[0])


class Urls(unittest.TestCase):
    def test_the_server_itself_fetches_no_tips(self):
        from django.test import Client

        answer = Client().get("/heidi-tips/")
        self.assertEqual((answer.status_code, answer.json()), (404, {}))
        self.assertEqual(answer.resolver_match.func.__module__, "ls_kit.urls")


class Diagnosis(unittest.TestCase):
    def test_nobody_is_told_without_a_token(self):
        from django.test import Client

        answer = Client(headers={"host": "127.0.0.1"}).get("/api/ls-kit/diagnosis")
        self.assertEqual(answer.status_code, 401)

    def test_a_database_that_a_writer_holds_is_locked_and_free_again_after_it(self):
        import sqlite3

        from ls_kit import diagnosis

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.sqlite3"
            writer = sqlite3.connect(path)
            writer.execute("CREATE TABLE a (b)")
            self.assertFalse(diagnosis.locked(path, 0.1))
            writer.execute("BEGIN IMMEDIATE")
            self.assertTrue(diagnosis.locked(path, 0.1))
            writer.rollback()
            self.assertFalse(diagnosis.locked(path, 0.1))
            writer.close()

    def test_a_migration_that_is_missing_is_pending_until_it_is_there(self):
        from django.db.migrations.recorder import MigrationRecorder

        from ls_kit import diagnosis

        self.assertEqual(diagnosis.migrations(), [])
        # A squashed one counts as there where those that it replaces are.
        rows = MigrationRecorder.Migration.objects.filter(app="tasks")
        row = rows.exclude(name__contains="squashed").last()
        row.delete()
        self.assertEqual(diagnosis.migrations(), [f"tasks.{row.name}"])
        row.save()
        self.assertEqual(diagnosis.migrations(), [])

    def test_a_backend_is_asked_only_where_label_studio_may(self):
        from ls_kit import diagnosis

        found = {
            url: diagnosis.reach(url)["kind"]
            for url in (
                "http://10.9.9.9:9090",
                "http://127.0.0.1:1",
                "http://nowhere.invalid:9090",
                "ftp://backend",
            )
        }
        self.assertEqual(list(found.values()), ["refused", "refused", "dns", "url"])


if __name__ == "__main__":
    unittest.main()
