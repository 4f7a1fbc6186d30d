"""Write-once objects below an S3 prefix. This is the only module that knows boto3."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.errors import InfraError, MissingObjectError
from infra.object_store import check_key, check_prefix, check_range

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

_CONNECT_TIMEOUT_S: Final = 5
_READ_TIMEOUT_S: Final = 60
_ATTEMPTS: Final = 4
_CONFLICT_PAUSE_S: Final = 0.2
_KEYS_PER_PAGE: Final = 1000


class S3Store:
    """Objects below an S3 prefix; the server decides who was first (``If-None-Match: *``)."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None = None) -> None:
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._made: Any = None

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def check(self) -> None:
        """Prove that the bucket exists and that the credentials may list it."""
        self._call(lambda s3: s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Put on the condition that the key is new; a conflict with a simultaneous writer is tried again."""
        name = self._prefix + check_key(key)
        for attempt in range(_ATTEMPTS):
            try:
                self._call(
                    lambda s3: s3.put_object(Bucket=self._bucket, Key=name, Body=data, IfNoneMatch="*"),
                    passing=("PreconditionFailed", "412", "ConditionalRequestConflict", "409"),
                )
            except _RefusedError as refused:
                if refused.code in ("PreconditionFailed", "412"):
                    return False
                time.sleep(_CONFLICT_PAUSE_S * (attempt + 1))
            else:
                return True
        msg = f"{self.url}: other writers kept {key!r} busy; run the command again"
        raise InfraError(msg)

    def get(self, key: str) -> bytes:
        """Read the object."""
        return self._read(key, lambda s3, name: s3.get_object(Bucket=self._bucket, Key=name)["Body"].read())

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Ask for a range of bytes."""
        span = f"bytes={offset}-{offset + length - 1}"

        def request(s3: Any, name: str) -> bytes:
            return s3.get_object(Bucket=self._bucket, Key=name, Range=span)["Body"].read()

        try:
            data = self._read(key, request, passing=("InvalidRange", "416"))
        except _RefusedError:  # the object ends before the range begins
            data = b""
        return check_range(self, key, length, data)

    def fetch(self, key: str, path: Path) -> None:
        """Download the object, in parts if it is large."""
        self._read(key, lambda s3, name: s3.download_file(self._bucket, name, str(path)))

    def exists(self, key: str) -> bool:
        """Ask for the object's head."""
        name = self._prefix + check_key(key)
        try:
            self._call(lambda s3: s3.head_object(Bucket=self._bucket, Key=name), passing=("NoSuchKey", "404"))
        except _RefusedError:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        """List page by page."""
        return sorted(self.tags(prefix))

    def tags(self, prefix: str) -> dict[str, str]:
        """List page by page, with entity tags."""
        request: dict[str, Any] = {
            "Bucket": self._bucket,
            "Prefix": self._prefix + check_prefix(prefix),
            "MaxKeys": _KEYS_PER_PAGE,
        }
        found: dict[str, str] = {}
        while True:
            page = self._call(lambda s3: s3.list_objects_v2(**request))
            found |= {item["Key"].removeprefix(self._prefix): item["ETag"] for item in page.get("Contents", ())}
            if not page.get("IsTruncated"):
                return found
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _read(self, key: str, request: Callable[[Any, str], Any], *, passing: tuple[str, ...] = ()) -> Any:
        name = self._prefix + check_key(key)
        try:
            return self._call(lambda s3: request(s3, name), passing=("NoSuchKey", "404", *passing))
        except _RefusedError as error:
            if error.code in passing:
                raise
            msg = f"the store {self.url} holds no object {key!r}"
            raise MissingObjectError(msg) from error

    def _client(self) -> Any:
        if self._made is None:
            from boto3.session import Session  # noqa: PLC0415 - half a second, paid at the first request
            from botocore.config import Config  # noqa: PLC0415

            config = Config(
                connect_timeout=_CONNECT_TIMEOUT_S,
                read_timeout=_READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                # trailing checksums, boto3's default, are refused by several S3-compatible servers
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
            self._made = Session().client("s3", endpoint_url=self._endpoint, config=config)
        return self._made

    def _call(self, request: Callable[[Any], Any], *, passing: tuple[str, ...] = ()) -> Any:
        """Send a request; error codes in ``passing`` become ``_RefusedError``, other failures a clear InfraError."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - see _client

        try:
            return request(self._client())
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in passing:
                raise _RefusedError(code) from error
            raise InfraError(self._explain_refusal(code, error)) from error
        except (BotoCoreError, ValueError) as error:
            raise InfraError(self._explain_failure(error)) from error

    def _explain_refusal(self, code: str, error: "ClientError") -> str:
        where = f" at {self._endpoint}" if self._endpoint else ""
        if code in ("NoSuchBucket", "404"):
            return f"there is no bucket {self._bucket!r}{where}: create it, or name another with vital store use"
        if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
            return (
                f"the bucket {self._bucket!r}{where} refuses these credentials ({code}): check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and the bucket's policy"
            )
        if code in ("NotImplemented", "501"):
            return f"the S3 server{where} does not know conditional writes (If-None-Match), which the store needs"
        return f"{self.url}{where}: {' '.join(str(error).split())}"

    def _explain_failure(self, error: "BotoCoreError | ValueError") -> str:
        name = type(error).__name__
        where = self._endpoint or "AWS"
        if name in ("NoCredentialsError", "PartialCredentialsError"):
            return "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        if name in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"):
            return f"the S3 server {where} does not answer: check --endpoint, AWS_ENDPOINT_URL and the network"
        return f"{self.url} at {where}: {' '.join(str(error).split())}"


class _RefusedError(Exception):
    """An answer of the server that the caller expects and understands."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code
