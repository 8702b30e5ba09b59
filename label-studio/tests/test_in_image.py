"""What needs Label Studio itself. By unittest, because the image has no pytest:

docker run --rm -v "$PWD/label-studio/tests:/tests:ro" -w /tests --entrypoint python \
    ls-yolo/label-studio:<version> -m unittest -v test_in_image
"""

import ast
import datetime
import importlib.util
import inspect
import json
import os
import signal
import sqlite3
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

IN_IMAGE = importlib.util.find_spec("label_studio") is not None
KEY = "0123456789abcdef0123456789abcdef01234567"
PASSWORD = "a-password-for-tests"


def setUpModule():
    """An empty database from the template, in a folder of the test's own.

    With DJANGO_DB=postgresql and POSTGRE_*, the empty one there: for the classes Bulk and Files.
    """
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
    postgresql = os.environ.get("DJANGO_DB") == "postgresql"
    if not postgresql:
        from ls_kit import entrypoint

        assert entrypoint.place_template(Path(folder.name) / "label_studio.sqlite3")
    spec = importlib.util.find_spec("label_studio")
    sys.path.insert(0, str(Path(spec.origin).parent))
    import django

    django.setup()
    if postgresql:
        from django.core.management import call_command

        call_command("migrate", verbosity=0)


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

        from ls_kit import entrypoint

        call_command("migrate", check_unapplied=True, verbosity=0)  # exits if there are any
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM django_migrations")
            self.assertGreater(cursor.fetchone()[0], 100)
        # The file itself: other classes leave rows in the copy.
        template = sqlite3.connect(f"file:{entrypoint.TEMPLATE}?mode=ro&immutable=1", uri=True)
        for model in (User, Organization, Token):
            (number,) = template.execute(f"SELECT count(*) FROM {model._meta.db_table}").fetchone()
            self.assertEqual(number, 0, model)
        template.close()


class Migrations(unittest.TestCase):
    def test_a_database_of_a_newer_label_studio_is_refused_with_the_way(self):
        from django.db.migrations.recorder import MigrationRecorder

        from ls_kit import entrypoint

        entrypoint.migrate()
        row = MigrationRecorder.Migration.objects.create(app="tasks", name="9999_later")
        self.addCleanup(row.delete)
        said = "newer Label Studio: it has tasks.9999_later.*restore the backup"
        with self.assertRaisesRegex(entrypoint.StartError, said):
            entrypoint.migrate()


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


CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="person"/></RectangleLabels></View>"""


def box(label="person", x=10.0):
    value = {
        "x": x,
        "y": 1.0,
        "width": 5.0,
        "height": 5.0,
        "rotation": 0,
        "rectanglelabels": [label],
    }
    return {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}


class Calling(unittest.TestCase):
    """A project of its own, and a client with its user's token."""

    def setUp(self):
        from projects.models import Project
        from rest_framework.test import APIClient

        from ls_kit import account

        account.ensure(account.read("", PASSWORD, KEY))
        from users.models import User

        self.user = User.objects.get(email="admin@example.com")
        self.project = Project.objects.create(
            title="p",
            label_config=CONFIG,
            created_by=self.user,
            organization=self.user.active_organization,
        )
        self.client = APIClient()
        self.client.credentials(HTTP_AUTHORIZATION=f"Token {KEY}")
        self.addCleanup(self.forget)

    def forget(self):
        from users.models import User

        self.project.delete()
        User.objects.all().delete()

    def call(self, name, body=None, project=None, status=200):
        path = f"/api/ls-kit/projects/{project or self.project.pk}/{name}/"
        send = self.client.get if body is None else self.client.post
        answer = send(path, body, format="json")
        self.assertEqual(answer.status_code, status, answer.content)
        return answer.json()

    def tasks(self, number, data=None):
        from tasks.models import Task

        made = Task.objects.bulk_create(
            Task(project=self.project, data=data or {"image": f"/data/{index}.jpg"})
            for index in range(number)
        )
        return [task.pk for task in made]

    def rows(self, tasks, version="m@1", score=0.5, result=None):
        result = [box()] if result is None else result
        return [
            {"task": task, "result": result, "score": score, "version": version} for task in tasks
        ]

    def stored(self, **only):
        from tasks.models import Prediction

        return Prediction.objects.filter(project=self.project, **only)


class Bulk(Calling):
    def test_a_prediction_is_stored_once_with_its_cluster_and_counted_by_its_task(self):
        from tasks.models import Task

        (task,) = self.tasks(1)
        before = Task.objects.get(pk=task).updated_at
        rows = [{**row, "cluster": 7} for row in self.rows([task])]
        first = self.call("store", {"rows": rows})
        self.assertEqual(first, {"stored": 1, "present": 0, "gone": [], "refused": []})
        again = self.call("store", {"rows": rows})
        self.assertEqual((again["stored"], again["present"]), (0, 1))
        (prediction,) = self.stored()
        self.assertEqual(
            (prediction.cluster, prediction.score, prediction.model_version, prediction.result),
            (7, 0.5, "m@1", [box()]),
        )
        found = Task.objects.get(pk=task)
        self.assertEqual(found.total_predictions, 1)
        self.assertGreater(found.updated_at, before)

    def test_a_good_one_takes_the_place_of_a_failed_one_and_never_the_other_way_round(self):
        (task,) = self.tasks(1)
        failed = self.rows([task], score=None, result=[])
        self.assertEqual(self.call("store", {"rows": failed})["stored"], 1)
        self.assertEqual(self.call("store", {"rows": failed})["present"], 1)
        other = self.rows([task], version="m@2", score=None, result=[])
        self.assertEqual(self.call("store", {"rows": other})["stored"], 1)
        self.assertEqual(self.call("store", {"rows": self.rows([task])})["stored"], 1)
        self.assertEqual(self.call("store", {"rows": failed})["present"], 1)
        self.assertEqual([found.score for found in self.stored(model_version="m@1")], [0.5])
        self.assertEqual(self.stored(model_version="m@2").count(), 1)

    def test_a_result_without_a_box_is_good_where_it_has_a_score(self):
        (task,) = self.tasks(1)
        self.call("store", {"rows": self.rows([task], score=1.0, result=[])})
        self.assertEqual(self.call("count", {"version": "m@1"})["missing"], 0)

    def test_what_was_stored_besides_the_first_good_prediction_is_deleted(self):
        from tasks.models import Prediction, Task

        one, two, three, four = self.tasks(4)
        keep = {}
        for task, scores in ((one, [0.5, 0.6]), (two, [None, 0.7, None]), (three, [None, None]),
                             (four, [0.9])):  # fmt: skip
            for score in scores:
                made = Prediction.objects.create(
                    task_id=task, project=self.project, model_version="m@1", score=score,
                    result=[] if score is None else [box()],
                )  # fmt: skip
                if task not in keep or (score is not None and keep[task].score is None):
                    keep[task] = made
        other = Prediction.objects.create(
            task_id=one, project=self.project, model_version="m@2", score=0.1, result=[]
        )
        self.assertEqual(self.call("settle", {"version": "m@1"})["deleted"], 4)
        self.assertEqual(self.call("settle", {"version": "m@1"})["deleted"], 0)
        left = set(self.stored().values_list("pk", flat=True))
        self.assertEqual(left, {row.pk for row in keep.values()} | {other.pk})
        self.assertEqual(Task.objects.get(pk=two).total_predictions, 1)

    def test_what_was_stored_while_a_task_that_is_opened_is_predicted_is_there_once(self):
        from unittest.mock import patch

        from ml.models import MLBackend

        (task,) = self.tasks(1)
        backend = MLBackend.objects.create(
            project=self.project, url="http://backend:1", title="m@1", state="CO",
            model_version="m@1",
        )  # fmt: skip
        self.project.model_version = "m@1"
        self.project.show_collab_predictions = True
        self.project.save()
        self.project.organization.created_by = self.user  # whom flags are asked for
        self.project.organization.save()

        def predict(_backend, tasks):
            self.call("store", {"rows": self.rows([task], score=0.7)})
            return [
                {"task": row["id"], "result": [box()], "score": 0.5, "model_version": "m@1",
                 "project": row["project"]}
                for row in tasks
            ]  # fmt: skip

        with (
            patch.object(MLBackend, "update_state", lambda _: "m@1"),
            patch.object(MLBackend, "_get_predictions_from_ml_backend", predict),
        ):
            answer = self.client.get(f"/api/tasks/{task}/?project={self.project.pk}")
        self.assertEqual(backend.project_id, self.project.pk)
        self.assertEqual(answer.status_code, 200, answer.content)
        (stored,) = self.stored()
        self.assertEqual(stored.score, 0.7)
        self.assertEqual([row["id"] for row in answer.json()["predictions"]], [stored.pk])

    def test_what_another_backend_answers_without_a_version_is_seen_when_a_task_is_opened(self):
        from unittest.mock import patch

        from ml.models import MLBackend
        from tasks.models import Task

        (task,) = self.tasks(1)
        backend = MLBackend.objects.create(
            project=self.project, url="http://other:1", title="other", state="CO"
        )

        def predict(_backend, tasks):
            return [
                {"task": row["id"], "result": [box()], "score": 0.5, "project": row["project"]}
                for row in tasks
            ]

        with (
            patch.object(MLBackend, "update_state", lambda _: None),
            patch.object(MLBackend, "_get_predictions_from_ml_backend", predict),
        ):
            found = backend.predict_tasks(list(Task.objects.filter(pk=task)))
        (stored,) = self.stored()
        self.assertFalse(stored.model_version)
        self.assertEqual([row.pk for row in found], [stored.pk])

    def test_rows_that_label_studio_would_refuse_are_refused_alone(self):
        bad, good, outside = self.tasks(3)
        rows = (
            self.rows([bad], result=[box("cat")])
            + self.rows([good])
            + self.rows([outside], result=[box(x=150.0)])
        )
        answer = self.call("store", {"rows": rows})
        self.assertEqual(answer["stored"], 1)
        refused = dict(map(tuple, answer["refused"]))
        self.assertEqual(set(refused), {bad, outside})
        self.assertIn("Region 0", refused[bad])

    def test_what_no_database_can_hold_is_refused_alone_or_named(self):
        from unittest import mock

        from django.db import DataError

        nul, half, good = self.tasks(3)
        texts = ((nul, "a\0b"), (half, "\ud800"), (good, "\\u0000 \U0001f600"))
        rows = []
        for task, text in texts:
            rows += self.rows([task], result=[{**box(), "meta": {text: [text]}}])
        path = f"/api/ls-kit/projects/{self.project.pk}/store/"
        # As escapes: what is half of a pair has no bytes.
        body = json.dumps({"rows": rows})
        answer = self.client.post(path, body, content_type="application/json").json()
        self.assertEqual(
            (answer["stored"], {row[0] for row in answer["refused"]}), (1, {nul, half})
        )
        rows = self.rows([good])
        for name, value in (("task", 2**31), ("cluster", 2**31), ("cluster", -(2**31))):
            row = {**self.rows([good])[0], name: value}
            detail = self.call("store", {"rows": [row]}, status=400)["detail"]
            self.assertIn(f"rows.0.{name}: Input should be", detail)
        with mock.patch("ls_kit.bulk.locked", side_effect=DataError("out of range")):
            detail = self.call("store", {"rows": rows}, status=400)["detail"]
        self.assertEqual(detail, "the database refuses it: out of range")

    def test_bodies_that_are_no_json_are_told_so(self):
        path = f"/api/ls-kit/projects/{self.project.pk}/count/"
        self.assertEqual(self.client.post(path, {"version": "m"}).status_code, 415)

    def test_what_strict_validation_does_not_know_is_stored_unless_label_studio_is_strict(self):
        from unittest import mock

        (task,) = self.tasks(1)
        before = self.project.label_config
        self.project.label_config = (
            '<View><Repeater on="$pages" indexFlag="{{idx}}">'
            '<Image name="image_{{idx}}" value="$pages[{{idx}}].image"/>'
            '<RectangleLabels name="label_{{idx}}" toName="image_{{idx}}">'
            '<Label value="person"/></RectangleLabels></Repeater></View>'
        )
        self.project.save()
        self.addCleanup(self.project.save)
        self.addCleanup(setattr, self.project, "label_config", before)
        numbered = {**box(), "from_name": "label_0", "to_name": "image_0"}
        rows = self.rows([task], result=[numbered])
        # The organization here has no owner, whom a flag is asked for.
        for strict, stored in ((True, 0), (False, 1)):
            with mock.patch("ls_kit.bulk.flag_set", return_value=strict):
                self.assertEqual(self.call("store", {"rows": rows})["stored"], stored)

    def test_tasks_that_are_gone_or_of_another_project_are_named(self):
        here, gone = self.tasks(2)
        from tasks.models import Task

        Task.objects.filter(pk=gone).delete()
        answer = self.call("store", {"rows": self.rows([here, gone])})
        self.assertEqual((answer["stored"], answer["gone"]), (1, [gone]))

    def test_more_than_500_rows_and_other_bodies_are_refused_in_words(self):
        answer = self.call("store", {"rows": self.rows(range(501))}, status=400)
        self.assertIn("at most 500 items", answer["detail"])
        for body, word in (
            ({"version": ""}, "version"),
            ({"version": "m", "shard": [2, 2]}, "shard: found [2, 2]"),
            ({"version": "m", "shards": 1}, "shards: Extra inputs"),
            ({"version": "m", "where": {"conjunction": "and"}}, "items"),
        ):
            with self.subTest(body):
                self.assertIn(word, self.call("count", body, status=400)["detail"])

    def test_what_lacks_a_version_is_counted_and_paged_through_by_range_of_id(self):
        tasks = self.tasks(10)
        self.call("store", {"rows": self.rows(tasks[:4])})
        self.call("store", {"rows": self.rows(tasks[4:5], score=None, result=[])})
        self.call("store", {"rows": self.rows(tasks[5:7], version="m@10")})  # not the same version
        self.assertEqual(
            self.call("count", {"version": "m@1"}), {"total": 10, "missing": 6, "failed": 1}
        )
        found, after = [], 0
        while True:
            page = self.call("missing", {"version": "m@1", "after": after, "limit": 4})
            found += [task["id"] for task in page["tasks"]]
            after = page["last"]
            if not after:
                break
        self.assertEqual(found, tasks[4:])
        until = self.call("missing", {"version": "m@1", "highest": tasks[6]})
        self.assertEqual([task["id"] for task in until["tasks"]], tasks[4:7])
        self.assertEqual(until["last"], 0)
        counted = self.call("count", {"version": "m@1", "highest": tasks[6]})
        self.assertEqual(counted, {"total": 7, "missing": 3, "failed": 1})
        self.assertEqual(self.call("highest"), {"highest": tasks[-1]})

    def test_a_page_goes_on_after_a_long_range_in_which_nothing_is_missing(self):
        from unittest.mock import patch

        from ls_kit import bulk

        tasks = self.tasks(9)
        self.call("store", {"rows": self.rows(tasks[:8])})
        with patch.object(bulk, "CHUNK", 2), patch.object(bulk, "LOOKED_AT", 4):
            pages, after = [], 0
            while True:
                page = self.call("missing", {"version": "m@1", "after": after})
                pages.append([task["id"] for task in page["tasks"]])
                after = page["last"]
                if not after:
                    break
        self.assertEqual(pages, [[], [], [tasks[8]]])
        # A filter that takes long for each chunk.
        with patch.object(bulk, "CHUNK", 2), patch.object(bulk, "SECONDS", -1):
            page = self.call("missing", {"version": "m@1"})
        self.assertEqual(page, {"tasks": [], "last": tasks[1]})

    def test_a_filter_reads_no_more_than_the_range_of_ids_that_is_looked_at(self):
        from unittest.mock import patch

        from ls_kit import bulk

        tasks = self.tasks(9)
        by_id = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number"}
        where = {"conjunction": "and", "items": [{**by_id, "value": tasks[4]}]}
        request = type("Request", (), {"user": self.user})()
        query = str(bulk.tasks_of(self.project, where, None, request, 3, 999).query)
        self.assertEqual((query.count('"id" > 3'), query.count('"id" <= 999')), (2, 2), query)
        with patch.object(bulk, "CHUNK", 2):
            page = self.call("missing", {"version": "m@1", "where": where, "highest": tasks[7]})
        self.assertEqual([task["id"] for task in page["tasks"]], tasks[5:8])

    def test_shards_are_disjoint_and_complete(self):
        tasks = self.tasks(11)
        parts = []
        for index in range(3):
            scope = {"version": "m@1", "shard": [index, 3]}
            page = self.call("missing", scope)["tasks"]
            self.assertEqual(self.call("count", scope)["total"], len(page))
            parts.append({task["id"] for task in page})
        self.assertEqual([{t % 3 for t in part} for part in parts], [{0}, {1}, {2}])
        self.assertEqual(sorted(set.union(*parts)), tasks)

    def test_a_filter_of_the_data_manager_counts(self):
        tasks = self.tasks(5)
        self.call("store", {"rows": self.rows(tasks[:1], version="old@1")})
        by_id = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number"}
        where = {"conjunction": "and", "items": [{**by_id, "value": tasks[2]}]}
        scope = {"version": "m@1", "where": where}
        self.assertEqual(self.call("count", scope)["total"], 2)
        page = self.call("missing", scope)
        self.assertEqual([task["id"] for task in page["tasks"]], tasks[3:])
        # One that reads what the Data Manager itself computes.
        computed = {
            "filter": "filter:tasks:predictions_model_versions",
            "operator": "contains",
            "type": "List",
            "value": ["old"],
        }
        scope["where"] = {"conjunction": "and", "items": [computed]}
        page = self.call("missing", scope)
        self.assertEqual([task["id"] for task in page["tasks"]], tasks[:1])

    def test_data_is_as_label_studio_sends_it_to_the_backend(self):
        from tasks.models import Task
        from tasks.serializers import TaskSimpleSerializer

        (task,) = self.tasks(1, data={"$undefined$": "/data/local-files/?d=a/b.jpg"})
        (found,) = self.call("missing", {"version": "m@1"})["tasks"]
        sent = TaskSimpleSerializer(Task.objects.get(pk=task)).data
        self.assertEqual(found, {"id": task, "data": {"image": "/data/local-files/?d=a/b.jpg"}})
        self.assertEqual(found["data"], sent["data"])

    def test_a_version_is_deleted_in_batches_and_what_is_shown_stays(self):
        from tasks.models import Task

        tasks = self.tasks(5)
        self.project.model_version = "m@1"
        self.project.save(update_fields=["model_version"])
        for version in ("m@1", "m@2"):
            self.call("store", {"rows": self.rows(tasks, version)})
        listed = self.call("versions")["versions"]
        self.assertEqual([(row["name"], row["count"]) for row in listed], [("m@1", 5), ("m@2", 5)])
        self.assertTrue(all(row["first"] <= row["last"] for row in listed))
        deleted = [self.call("delete", {"version": "m@1", "limit": 3})["deleted"] for _ in range(3)]
        self.assertEqual(deleted, [3, 2, 0])
        self.assertEqual({found.model_version for found in self.stored()}, {"m@2"})
        counted = Task.objects.filter(project=self.project)
        self.assertEqual(set(counted.values_list("total_predictions", flat=True)), {1})
        self.project.refresh_from_db()
        self.assertEqual(self.project.model_version, "m@1")

    def test_predictions_without_a_version_are_listed_once_and_deleted(self):
        from tasks.models import Prediction

        for task, version in zip(self.tasks(3), (None, "", "m@1"), strict=True):
            Prediction.objects.create(
                task_id=task, project=self.project, model_version=version, result=[box()]
            )
        listed = self.call("versions")["versions"]
        self.assertEqual([(row["name"], row["count"]) for row in listed], [("", 2), ("m@1", 1)])
        self.assertEqual(self.call("delete", {"version": ""})["deleted"], 2)
        self.assertEqual([found.model_version for found in self.stored()], ["m@1"])

    def test_an_annotation_outlives_the_prediction_that_it_was_made_from(self):
        from tasks.models import Annotation

        (task,) = self.tasks(1)
        self.call("store", {"rows": self.rows([task])})
        annotation = Annotation.objects.create(
            task_id=task, project=self.project, result=[box()], parent_prediction=self.stored()[0]
        )
        self.call("delete", {"version": "m@1"})
        annotation.refresh_from_db()
        self.assertIsNone(annotation.parent_prediction_id)

    def test_all_that_points_to_a_prediction_is_known(self):
        from tasks.models import Prediction

        # `_remove` of bulk.py looks after these itself.
        found = {
            (to.related_model.__name__, to.field.name) for to in Prediction._meta.related_objects
        }
        self.assertEqual(
            found, {("Annotation", "parent_prediction"), ("PredictionMeta", "prediction")}
        )

    def test_numbers_get_a_column_and_never_go_over_what_somebody_else_wrote(self):
        from data_manager.functions import get_all_columns
        from projects.models import Project
        from tasks.models import Task

        first, second = self.tasks(2, data={"image": "/a.jpg", "camera": 3})
        values = {str(first): {"objects": 2, "camera": 9}, str(second): {"objects": 0.5}}
        answer = self.call("numbers", {"values": values})
        self.assertEqual(answer, {"changed": 2, "kept": ["camera"]})
        self.assertEqual(self.call("numbers", {"values": values})["changed"], 0)
        self.call("numbers", {"values": {str(first): {"objects": 4}}})
        data = Task.objects.get(pk=first).data
        self.assertEqual(data, {"image": "/a.jpg", "camera": 3, "objects": 4})
        project = Project.objects.get(pk=self.project.pk)
        self.assertEqual(project.summary.all_data_columns["objects"], 2)
        columns = [column["id"] for column in get_all_columns(project)["columns"]]
        self.assertIn("objects", columns)
        self.call("numbers", {"values": {str(first): {"objects": "many"}}}, status=400)

    def test_somebody_elses_project_is_not_found_and_without_a_token_nothing_is(self):
        from organizations.models import Organization
        from projects.models import Project
        from users.models import User

        other = User.objects.create(email="other@example.com", username="other")
        organization = Organization.create_organization(created_by=other, title="other")
        theirs = Project.objects.create(title="t", created_by=other, organization=organization)
        self.addCleanup(theirs.delete)
        for name, body in (
            ("count", {"version": "m"}),
            ("missing", {"version": "m"}),
            ("store", {"rows": []}),
            ("versions", None),
            ("delete", {"version": "m"}),
            ("numbers", {"values": {}}),
            ("highest", None),
        ):
            with self.subTest(name):
                self.call(name, body, project=theirs.pk, status=404)
                self.client.credentials()
                self.call(name, body, status=401)
                self.client.credentials(HTTP_AUTHORIZATION=f"Token {KEY}")

    def test_what_there_is_is_listed(self):
        answer = self.client.get("/api/ls-kit/")
        self.assertIn("store", answer.json()["calls"])

    def test_eight_writers_at_once_store_each_prediction_once(self):
        tasks = self.tasks(120)
        bodies = [{"rows": self.rows(tasks[start : start + 40])} for start in (0, 40, 80)] * 8
        answers = in_threads(8, lambda body: self.call("store", body), bodies)
        self.assertEqual(sum(answer["stored"] for answer in answers), 120)
        self.assertEqual(sum(answer["present"] for answer in answers), 120 * 7)
        self.assertEqual(self.stored().count(), 120)
        self.assertEqual(self.stored().values("task").distinct().count(), 120)

    def test_a_writer_that_is_killed_leaves_nothing_half_done(self):
        from tasks.models import Task

        tasks = self.tasks(50)
        rows = self.rows(tasks)

        def die(*_args):
            os.kill(os.getpid(), signal.SIGKILL)

        from ls_kit import bulk

        # After the predictions are in, before the transaction ends.
        with patched(bulk, "_recount", die):
            self.assertEqual(in_child(lambda: bulk.store(self.project, rows)), signal.SIGKILL)
        self.assertEqual(self.stored().count(), 0)
        self.assertEqual(self.call("store", {"rows": rows})["stored"], 50)
        counted = Task.objects.filter(project=self.project)
        self.assertEqual(set(counted.values_list("total_predictions", flat=True)), {1})


def patched(*args):
    from unittest.mock import patch

    return patch.object(*args)


def in_threads(number, function, arguments):
    """What ``function`` returns for each argument, in threads that each have their connection."""
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connections

    def run(argument):
        try:
            return function(argument)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(run, arguments))


def in_child(function):
    """The signal that ends a process of its own that runs ``function``; 0 where it ends well."""
    from django.db import connections

    connections.close_all()
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


class Files(Calling):
    def setUp(self):
        from django.conf import settings
        from django.test import override_settings

        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = override_settings(
            LOCAL_FILES_DOCUMENT_ROOT=folder.name, LOCAL_FILES_SERVING_ENABLED=True
        )
        root.enable()
        self.addCleanup(root.disable)
        self.assertTrue(settings.LOCAL_FILES_SERVING_ENABLED)
        self.folder = Path(folder.name) / "images"
        self.folder.mkdir()

    def storage(self, **fields):
        from io_storages.localfiles.models import LocalFilesImportStorage

        wanted = {
            "project": self.project,
            "path": str(self.folder),
            "use_blob_urls": True,
            "recursive_scan": True,
        }
        return LocalFilesImportStorage.objects.create(**{**wanted, **fields})

    def files(self, *names):
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def make(self, storage, limit=2000, status=200):
        path = f"/api/ls-kit/storages/localfiles/{storage.pk}/make-tasks/"
        answer = self.client.post(path, {"limit": limit}, format="json")
        self.assertEqual(answer.status_code, status, answer.content)
        return answer.json()

    def made(self, project=None):
        from tasks.models import Task

        rows = Task.objects.filter(project=project or self.project).order_by("pk")
        return [
            (row.data, row.inner_id, row.overlap, row.is_labeled, row.allow_skip) for row in rows
        ]

    def sync(self, storage):
        """What the page's button does; how many tasks it made."""
        answer = self.client.post(f"/api/storages/localfiles/{storage.pk}/sync")
        self.assertEqual(answer.status_code, 200, answer.content)
        self.assertEqual(answer.json()["status"], "completed", answer.content)
        return answer.json()["last_sync_count"]

    def test_tasks_are_those_of_label_studios_own_sync_and_a_later_sync_finds_nothing_new(self):
        from projects.models import Project

        self.files("b.jpg", "a b#1.jpg", "sub/c.jpg", "sub/left out.txt")
        own = self.storage(regex_filter=r".*\.jpg")
        answer = self.make(own)
        self.assertEqual(answer, {"made": 3, "left": 0})
        twin = Project.objects.create(
            title="twin",
            label_config=CONFIG,
            created_by=self.user,
            organization=self.user.active_organization,
        )
        self.addCleanup(twin.delete)
        theirs = self.storage(regex_filter=r".*\.jpg", project=twin)
        self.assertEqual(self.sync(theirs), 3)
        self.assertEqual(self.made(), self.made(twin))
        links = [
            storage.links.order_by("pk").values_list("key", "object_exists")
            for storage in (own, theirs)
        ]
        self.assertEqual(*map(list, links))
        self.project.summary.refresh_from_db()
        twin.summary.refresh_from_db()
        self.assertEqual(
            (self.project.summary.all_data_columns, self.project.summary.common_data_columns),
            (twin.summary.all_data_columns, twin.summary.common_data_columns),
        )
        own.refresh_from_db()
        theirs.refresh_from_db()
        self.assertEqual((own.status, own.last_sync_count), (theirs.status, theirs.last_sync_count))
        self.assertIsNotNone(own.last_sync)
        self.assertEqual(self.sync(own), 0)
        self.files("new.jpg")
        self.assertEqual(self.sync(own), 1)
        self.assertEqual(self.make(own), {"made": 0, "left": 0})

    def test_a_folder_is_done_in_several_requests_and_only_what_is_new_the_next_time(self):
        self.files(*(f"{index:03}.jpg" for index in range(25)))
        storage = self.storage()
        answers = [self.make(storage, limit=10) for _ in range(3)]
        self.assertEqual([row["made"] for row in answers], [10, 10, 5])
        self.assertEqual([row["left"] for row in answers], [15, 5, 0])
        self.files("a.jpg")
        self.assertEqual(self.make(storage, limit=10), {"made": 1, "left": 0})
        storage.refresh_from_db()
        self.assertEqual((storage.status, storage.last_sync_count), ("completed", 1))
        numbers = [row[1] for row in self.made()]
        self.assertEqual(numbers, list(range(1, 27)))

    def test_names_that_are_no_utf8_are_left_out(self):
        self.files("a.jpg")
        Path(os.fsdecode(os.fsencode(self.folder) + b"/caf\xe9.jpg")).touch()
        self.assertEqual(self.make(self.storage()), {"made": 1, "left": 0})

    def test_files_of_tasks_become_the_tasks_in_them_with_their_predictions(self):
        (self.folder / "many.json").write_text(
            '[{"image": "/1.jpg"}, {"data": {"image": "/2.jpg"}}, '
            '{"data": {"image": "/3.jpg"}, "predictions": [{"model_version": "m", "result": []}]}]'
        )
        storage = self.storage(use_blob_urls=False)
        # A file is never cut in two, or the rest of it would count as done.
        self.assertEqual(self.make(storage, limit=1), {"made": 3, "left": 0})
        self.assertEqual(
            sorted(row[0]["image"] for row in self.made()), ["/1.jpg", "/2.jpg", "/3.jpg"]
        )
        self.assertEqual(self.stored().count(), 1)
        self.assertEqual(self.sync(storage), 0)

    def test_what_cannot_be_read_is_said_and_the_storage_says_it_too(self):
        self.files("a.jpg")
        storage = self.storage(use_blob_urls=False)
        answer = self.make(storage, status=422)
        self.assertIn("a.jpg is no JSON", answer["detail"])
        storage.refresh_from_db()
        self.assertEqual(storage.status, "failed")
        self.assertIn("a.jpg is no JSON", storage.traceback)
        storage.use_blob_urls = True
        storage.save()
        self.assertEqual(self.make(storage)["made"], 1)

    def test_a_sync_that_runs_is_waited_for_and_one_that_was_killed_is_not_for_long(self):
        from django.utils import timezone

        self.files("a.jpg")
        storage = self.storage()
        for seconds, status in ((3, 409), (26, 200)):
            since = str(timezone.now() - datetime.timedelta(seconds=seconds))
            storage.meta = {
                "time_queued": since,
                "time_in_progress": since,
                "time_last_ping": since,
            }
            storage.status = "in_progress"
            storage.save()
            answer = self.make(storage, status=status)
            if status == 409:
                self.assertIn("Label Studio is syncing it", answer["detail"])
        self.assertEqual(answer["made"], 1)

    def test_a_sync_from_the_page_does_not_begin_while_tasks_are_made(self):
        from unittest.mock import patch

        from ls_kit import tasks_of_storage

        self.files(*(f"{index:03}.jpg" for index in range(20)))
        storage, answers = self.storage(), []
        look = tasks_of_storage._look

        def sync_meanwhile(*args):
            answers.append(self.client.post(f"/api/storages/localfiles/{storage.pk}/sync").json())
            return look(*args)

        with patch.object(tasks_of_storage, "_look", sync_meanwhile):
            self.make(storage, limit=10)
        self.assertEqual((answers[0]["status"], len(self.made())), ("in_progress", 10))
        self.assertEqual(self.make(storage, limit=10), {"made": 10, "left": 0})
        self.files("new.jpg")
        self.assertEqual(self.sync(storage), 1)
        # One that stopped half-way holds up nobody for long.
        self.files(*(f"a{index}.jpg" for index in range(10)))
        self.make(storage, limit=5)
        storage.refresh_from_db()
        long_ago = str(datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=26))
        storage.meta["time_last_ping"] = long_ago
        storage.save()
        # The page lists them, which is when upstream itself sees which are dead.
        self.client.get(f"/api/storages/localfiles?project={self.project.pk}")
        self.assertEqual(self.sync(storage), 5)

    def test_where_a_sync_has_begun_after_all_no_task_is_made_beside_it(self):
        from unittest.mock import patch

        from django.utils import timezone

        from ls_kit import tasks_of_storage

        self.files("a.jpg")
        storage = self.storage()
        look = tasks_of_storage._look

        def begin(*args):
            look(*args)
            meta = {"time_queued": str(timezone.now()), "attempts": 9}
            type(storage).objects.filter(pk=storage.pk).update(status="queued", meta=meta)

        with patch.object(tasks_of_storage, "_look", begin):
            answer = self.make(storage, status=409)
        self.assertIn("Label Studio is syncing it", answer["detail"])
        self.assertEqual(self.made(), [])
        storage.refresh_from_db()
        self.assertEqual((storage.status, storage.meta["attempts"]), ("queued", 9))

    def test_two_at_once_make_each_task_once(self):
        self.files(*(f"{index:03}.jpg" for index in range(60)))
        storage = self.storage()
        in_threads(4, lambda _: self.make(storage, limit=10), range(40))
        self.assertEqual(len(self.made()), 60)
        self.assertEqual(len({row[0]["$undefined$"] for row in self.made()}), 60)
        self.assertEqual(sorted(row[1] for row in self.made()), list(range(1, 61)))

    def test_a_label_studio_that_is_killed_meanwhile_goes_on(self):
        from ls_kit import tasks_of_storage

        self.files(*(f"{index:03}.jpg" for index in range(30)))
        storage = self.storage()

        def die(*_args, **_more):
            os.kill(os.getpid(), signal.SIGKILL)

        def half():
            tasks_of_storage.make(storage, 10)
            with patched(tasks_of_storage, "_task", die):
                tasks_of_storage.make(storage, 10)

        self.assertEqual(in_child(half), signal.SIGKILL)
        self.assertEqual(len(self.made()), 10)
        storage.refresh_from_db()
        self.assertEqual(storage.status, "in_progress")
        self.assertEqual(self.make(storage), {"made": 20, "left": 0})
        self.assertEqual(self.sync(storage), 0)

    def test_a_storage_of_somebody_else_and_a_kind_that_is_none_are_not_found(self):
        from organizations.models import Organization
        from projects.models import Project
        from users.models import User

        other = User.objects.create(email="other@example.com", username="other")
        organization = Organization.create_organization(created_by=other, title="other")
        theirs = Project.objects.create(title="t", created_by=other, organization=organization)
        self.addCleanup(theirs.delete)
        self.make(self.storage(project=theirs), status=404)
        answer = self.client.post("/api/ls-kit/storages/redis/1/make-tasks/", {}, format="json")
        self.assertEqual(answer.status_code, 404)
        self.assertIn("expected one of: localfiles, s3, gcs, azure", answer.json()["detail"])


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
                "http://[::1",
            )
        }
        self.assertEqual(list(found.values()), ["refused", "refused", "dns", "url", "url"])


if __name__ == "__main__":
    unittest.main()
