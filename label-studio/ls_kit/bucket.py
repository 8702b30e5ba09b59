"""Backups in a bucket of S3. An object is there once all of it is: nothing has its name before."""

# boto3 is there in the image, without types.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import contextlib
import datetime
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lib import archive, backups
from lib.cli import UserError, say
from lib.progress import Progress

MIB = 1 << 20
MOST_PARTS = 10_000
"""S3's own limit of an upload."""


class _Broken(Exception):
    """Whoever wrote did not come to the end."""


class _Pipe:
    """What an upload reads. After ``broken`` its end is an error, so that nothing half is kept."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.broken = file, False

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        if self.broken:
            raise _Broken
        return data


class Bucket:
    """A folder of a bucket, with the rights that boto3 finds in the environment."""

    def __init__(self, name: str, folder: str = "", region: str = "", endpoint: str = "") -> None:
        import boto3
        from botocore.config import Config

        self.name = name
        self.prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        # Newer sums than the one that S3 has always had are not known to every S3.
        config = Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if endpoint else {},
        )
        self.client = boto3.client(
            "s3", region_name=region or None, endpoint_url=endpoint or None, config=config
        )

    def names(self) -> list[str]:
        """Those of the objects of this folder."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=self.prefix, Delimiter="/"
        )
        return [
            found["Key"].removeprefix(self.prefix)
            for page in pages
            for found in page.get("Contents", [])
        ]

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=self.prefix + name)

    def forget_uploads(self, project: str, before: datetime.datetime) -> None:
        """Takes away what runs that were killed have left of an installation's archives.

        before: when an upload began that nobody goes on with.
        """
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.name, Prefix=f"{self.prefix}{project}-"
        )
        for page in pages:
            for left in page.get("Uploads", []):
                if left["Initiated"] >= before:
                    continue
                self.client.abort_multipart_upload(
                    Bucket=self.name, Key=left["Key"], UploadId=left["UploadId"]
                )

    @contextlib.contextmanager
    def placing(self, name: str, size: int) -> Iterator[IO[bytes]]:
        """A file whose content becomes an object, if nothing is raised meanwhile.

        size: bytes of it, about.
        """
        from boto3.s3.transfer import TransferConfig

        part = max(8 * MIB, 2 * size // MOST_PARTS)
        config = TransferConfig(
            multipart_threshold=part, multipart_chunksize=part, max_concurrency=2
        )
        config.max_in_memory_upload_chunks = 2
        reads, writes = os.pipe()
        source = _Pipe(os.fdopen(reads, "rb"))
        failures: list[Exception] = []

        def upload() -> None:
            try:
                self.client.upload_fileobj(source, self.name, self.prefix + name, Config=config)
            except Exception as error:
                failures.append(error)
            finally:
                source.file.close()  # whoever writes is told by it

        thread = threading.Thread(target=upload)
        thread.start()
        out: Any = os.fdopen(writes, "wb")
        try:
            yield out
            out.flush()
        except BaseException:
            source.broken = True
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                out.close()
            thread.join()
            # Who writes to a pipe that was closed does not know why.
            if failures and not isinstance(failures[0], _Broken):
                raise failures[0]


def save(source: backups.Source, bucket: Bucket, lock: archive.Lock, keep: int = 0) -> str:
    """Makes an archive in a bucket.

    keep: how many of this installation stay; 0: all.

    Returns:
        Its address.

    Raises:
        UserError: it cannot be made; nothing new is there then.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        # One that began since may be under way.
        bucket.forget_uploads(source.project, backups.now() - datetime.timedelta(days=1))
        total = source.total()
        moment = backups.now()
        name = source.name(moment, lock)
        with bucket.placing(name, total) as out:
            source.write(out, moment, lock, Progress(total), Path(tempfile.gettempdir()))
        for old in backups.old(bucket.names(), source.project, keep):
            bucket.remove(old)
            say(f"{old}: removed, {keep} newer ones are there")
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise UserError(f"bucket {bucket.name}: {error}") from None
    return f"s3://{bucket.name}/{bucket.prefix}{name}"
