"""Object stores, reduced to four requests: put, get a range, delete, list.

S3 and Azure use obstore, Google Cloud Storage uses pyarrow; both are imported when such a URI is
opened, not before. Credentials come from the options, else from the environment; no error and no
log line contains them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from sennit_core.errors import Unsupported, UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

Options = dict[str, str]

# Responses that a retry cannot change: 4xx, except 408 (timeout) and 429 (too many requests).
_REFUSED = re.compile(
    r"status:? 4(?!08|29)\d\d|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT", re.IGNORECASE
)


class RequestFailed(Exception):
    """A request failed; `ObjectStore` retries it or maps it to a `SpillError`."""

    def __init__(self, reason: str, *, retryable: bool, is_missing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retryable = retryable
        self.is_missing = is_missing


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """An object in a listing; `modified` is in seconds since 1970."""

    key: str
    size_bytes: int
    modified: float


class ObjectClient(Protocol):
    """The requests of a store; each raises `RequestFailed`."""

    place: str

    def put(self, key: str, data: Buffer) -> None:
        """Store a whole object; replaces an object of the same key."""

    def get(self, key: str, start: int, length: int) -> Buffer:
        """Return a range of an object."""

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; missing objects are no error."""

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        """List the objects whose keys begin with `prefix`."""


def open_client(uri: str, options: Options) -> tuple[ObjectClient, str]:
    """Open the client for a URI; return it with the URI's key prefix.

    Args:
        uri: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
        options: for s3: endpoint, region, access_key_id, secret_access_key, session_token,
            skip_signature, virtual_hosted_style; for az: endpoint, account_name, account_key,
            sas_key; for gs: endpoint, access_token, anonymous; for each: timeout_seconds.

    Raises:
        UsageError: the URI or an option is invalid.
        Unsupported: there is no such store, or its package is not installed.
    """
    parts = urlsplit(uri)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError("a spill URI is scheme://bucket/prefix; credentials are options")
    opener = _OPENERS.get(parts.scheme)
    if opener is None:
        raise Unsupported(f"cannot spill to {parts.scheme}://: use s3, gs, az, or a folder")
    if not parts.netloc:
        raise UsageError(f"{uri} names no bucket")
    prefix = parts.path.strip("/")
    return opener(parts.netloc, options), f"{prefix}/" if prefix else ""


class ObstoreClient:
    """S3 or Azure through obstore.

    Args:
        store: the store of obstore.
        place: its name in errors.
        secrets: strings that no error may contain.
    """

    def __init__(self, store: Any, place: str, secrets: Sequence[str]) -> None:
        import obstore

        self.place = place
        self._obstore = obstore
        self._store = store
        self._secrets = [secret for secret in secrets if secret]
        gone = obstore.exceptions
        self._errors = (gone.BaseError, OSError, ValueError)
        self._refusals = (
            gone.PermissionDeniedError,
            gone.UnauthenticatedError,
            gone.NotSupportedError,
            gone.InvalidPathError,
            gone.UnknownConfigurationKeyError,
        )

    def put(self, key: str, data: Buffer) -> None:
        """Store an object in one request."""
        try:
            # One request: an upload in parts that a killed process leaves is invisible to listings,
            # and billed.
            self._obstore.put(self._store, key, data, use_multipart=False)
        except self._errors as error:
            raise self._failed(error) from None

    def get(self, key: str, start: int, length: int) -> Buffer:
        """Return a range."""
        try:
            data: Buffer = self._obstore.get_range(self._store, key, start=start, length=length)
        except self._errors as error:
            raise self._failed(error) from None
        return data

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, many in one request where the store can."""
        try:
            self._obstore.delete(self._store, list(keys))
        except self._errors as error:
            failed = self._failed(error)
            if not failed.is_missing:
                raise failed from None

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        """List objects."""
        try:
            for page in self._obstore.list(self._store, prefix=prefix or None):
                for row in page:
                    modified = row["last_modified"].timestamp()
                    yield ObjectFacts(row["path"], row["size"], modified)
        except self._errors as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> RequestFailed:
        """Return the error as one line without secrets; its cause, which has them, is dropped."""
        missing = isinstance(error, (self._obstore.exceptions.NotFoundError, FileNotFoundError))
        refused = missing or isinstance(error, (*self._refusals, PermissionError, ValueError))
        refused = refused or _REFUSED.search(str(error)) is not None
        return RequestFailed(
            scrubbed(error, self._secrets), retryable=not refused, is_missing=missing
        )


class ArrowClient:
    """Google Cloud Storage through pyarrow's own client.

    Args:
        files: the file system of pyarrow.
        bucket: the bucket of every key.
        place: its name in errors.
        secrets: strings that no error may contain.
    """

    def __init__(self, files: Any, bucket: str, place: str, secrets: Sequence[str]) -> None:
        import pyarrow as pa

        self.place = place
        self._errors = (OSError, pa.ArrowException)
        self._files = files
        self._bucket = bucket
        self._secrets = [secret for secret in secrets if secret]

    def put(self, key: str, data: Buffer) -> None:
        """Store an object; it exists once the stream is closed."""
        try:
            with self._files.open_output_stream(f"{self._bucket}/{key}", compression=None) as out:
                out.write(data)
        except self._errors as error:
            raise self._failed(error) from None

    def get(self, key: str, start: int, length: int) -> Buffer:
        """Return a range."""
        try:
            with self._files.open_input_file(f"{self._bucket}/{key}") as file:
                data: Buffer = file.read_at(length, start)
        except self._errors as error:
            raise self._failed(error) from None
        return data

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects one by one."""
        for key in keys:
            try:
                self._files.delete_file(f"{self._bucket}/{key}")
            except self._errors as error:
                failed = self._failed(error)
                if not failed.is_missing:
                    raise failed from None

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        """List objects below a prefix, which must end at a slash."""
        from pyarrow.fs import FileSelector, FileType

        folder = f"{self._bucket}/{prefix}".rstrip("/")
        try:
            rows = self._files.get_file_info(
                FileSelector(folder, recursive=True, allow_not_found=True)
            )
        except self._errors as error:
            raise self._failed(error) from None
        for row in rows:
            if row.type == FileType.File:
                key = row.path.removeprefix(f"{self._bucket}/")
                yield ObjectFacts(
                    key, row.size, row.mtime.timestamp() if row.mtime else time.time()
                )

    def _failed(self, error: Exception) -> RequestFailed:
        text = str(error)
        missing = isinstance(error, FileNotFoundError) or "NOT_FOUND" in text
        refused = missing or _REFUSED.search(text) is not None
        return RequestFailed(
            scrubbed(error, self._secrets), retryable=not refused, is_missing=missing
        )


def scrubbed(error: Exception, secrets: Sequence[str]) -> str:
    """Return the first line of an error, shortened, without secrets."""
    text = str(error).strip()
    # An error may quote its request, credentials included.
    for secret in secrets:
        text = text.replace(secret, "***")
    line = text.splitlines()[0] if text else type(error).__name__
    return line if len(line) <= 300 else f"{line[:300]}…"


def _open_s3(bucket: str, options: Options) -> ObjectClient:
    """Open a bucket; missing options come from the AWS_… environment variables."""
    obstore_store = _obstore("s3")
    settings = _with_environment(options, _S3_OPTIONS)
    endpoint = settings.get("endpoint")
    config = {
        name: settings[name]
        for name in ("access_key_id", "secret_access_key", "session_token", "endpoint")
        if name in settings
    }
    store = obstore_store.S3Store(
        bucket,
        region=settings.get("region", "us-east-1"),
        virtual_hosted_style_request=settings.get("virtual_hosted_style", "false") == "true",
        skip_signature=settings.get("skip_signature", "false") == "true",
        client_options=_client_options(settings, endpoint),
        retry_config=_NO_RETRIES,
        **config,
    )
    secrets = [settings.get(name, "") for name in _S3_SECRETS]
    return ObstoreClient(store, f"s3://{bucket}", secrets)


def _open_azure(container: str, options: Options) -> ObjectClient:
    """Open a container; missing options come from the AZURE_… environment variables."""
    obstore_store = _obstore("az")
    settings = _with_environment(options, _AZURE_OPTIONS)
    endpoint = settings.get("endpoint")
    config = {
        name: settings[name]
        for name in ("account_name", "account_key", "sas_key", "endpoint")
        if name in settings
    }
    store = obstore_store.AzureStore(
        container_name=container,
        client_options=_client_options(settings, endpoint),
        retry_config=_NO_RETRIES,
        **config,
    )
    secrets = [settings.get("account_key", ""), settings.get("sas_key", "")]
    return ObstoreClient(store, f"az://{container}", secrets)


def _open_gcs(bucket: str, options: Options) -> ObjectClient:
    """Open a bucket; without options, with the machine's own credentials."""
    try:
        from pyarrow.fs import GcsFileSystem
    except ImportError as error:
        raise Unsupported(
            "spilling to gs:// needs pyarrow", hint="install sennit-emsqrt[arrow]"
        ) from error
    settings = _with_environment(options, _GCS_OPTIONS)
    config: dict[str, Any] = {}
    if endpoint := settings.get("endpoint"):
        parts = urlsplit(endpoint)
        config |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    if token := settings.get("access_token"):
        from datetime import UTC, datetime

        config |= {
            "access_token": token,
            # pyarrow requires an expiration next to a token, and that of the token is unknown here.
            "credential_token_expiration": datetime.now(UTC) + timedelta(days=1),
        }
    is_emulated = "access_token" not in settings and "STORAGE_EMULATOR_HOST" in os.environ
    files = GcsFileSystem(
        anonymous=settings.get("anonymous", str(is_emulated).lower()) == "true",
        retry_time_limit=timedelta(seconds=float(settings.get("timeout_seconds", "30"))),
        **config,
    )
    return ArrowClient(files, bucket, f"gs://{bucket}", [settings.get("access_token", "")])


_OPENERS = {"s3": _open_s3, "gs": _open_gcs, "az": _open_azure}
# Retries are those of `Retry`, so that all stores, and the faults of tests, meet the same policy.
_NO_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(seconds=0)}
_S3_SECRETS = ("access_key_id", "secret_access_key", "session_token")
_S3_OPTIONS = {
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN",),
    "skip_signature": (),
    "virtual_hosted_style": (),
    "timeout_seconds": (),
}
_AZURE_OPTIONS = {
    "endpoint": ("AZURE_STORAGE_ENDPOINT",),
    "account_name": ("AZURE_STORAGE_ACCOUNT_NAME",),
    "account_key": ("AZURE_STORAGE_ACCOUNT_KEY",),
    "sas_key": ("AZURE_STORAGE_SAS_KEY",),
    "timeout_seconds": (),
}
_GCS_OPTIONS: dict[str, tuple[str, ...]] = {
    "endpoint": ("STORAGE_EMULATOR_HOST",),
    "access_token": (),
    "anonymous": (),
    "timeout_seconds": (),
}


def _with_environment(options: Options, known: dict[str, tuple[str, ...]]) -> Options:
    """Return the options, with missing ones from the environment."""
    if unknown := options.keys() - known.keys():
        raise UsageError(
            f"unknown spill option {', '.join(sorted(unknown))}; known: {', '.join(known)}"
        )
    found = {
        name: value
        for name, variables in known.items()
        # The first variable of the tuple has precedence: in a dict the last assignment remains.
        for variable in reversed(variables)
        if (value := os.environ.get(variable))
    }
    return found | options


def _client_options(settings: Options, endpoint: str | None) -> dict[str, Any]:
    seconds = float(settings.get("timeout_seconds", "30"))
    return {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=min(5.0, seconds)),
        "allow_http": endpoint is not None and endpoint.startswith("http://"),
    }


def _obstore(scheme: str) -> Any:
    try:
        import obstore.store
    except ImportError as error:
        raise Unsupported(
            f"spilling to {scheme}:// needs obstore", hint="install sennit-emsqrt[s3]"
        ) from error
    return obstore.store
