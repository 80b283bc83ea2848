"""Requests to a bucket of S3 that are signed here, so that they can go the way of the web.

botocore takes ten times as long for a signature, and s3fs seven times as long for a small object.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

DEFAULT_PORTS = {"http": ":80", "https": ":443"}
NOTHING = hashlib.sha256(b"").hexdigest()  # of the body of a GET


class Keys(NamedTuple):
    """What signs."""

    access_key: str
    secret_key: str
    token: str | None = None


class Bucket(NamedTuple):
    """Where a bucket is, and what signs requests to it."""

    address: str  # to which a key is added
    region: str
    credentials: Any  # Keys, or botocore's where these are renewed from time to time; None: anybody may read it

    @classmethod
    async def of(cls, system: Any, name: str) -> Bucket | None:
        """By an s3fs filesystem; None where there is no simple address, or nothing to sign with."""
        client = await system.set_session()
        url = await client.generate_presigned_url("get_object", Params={"Bucket": name, "Key": "k"})
        address = url.partition("?")[0]
        credentials = None if system.anon else await system.session.get_credentials()
        if address.startswith("https:") and system.session.get_config_variable("ca_bundle"):
            return None  # its certificate is vouched for by others than those of the web
        if not address.endswith("/k") or (credentials is None and not system.anon):
            return None
        if credentials is not None and not hasattr(credentials, "refresh_needed"):
            credentials = await _keys_of(credentials)
        return cls(address[:-1], client.meta.region_name or "us-east-1", credentials)

    async def request(self, key: str) -> tuple[str, Mapping[str, str]]:
        """The URL that an object is at, and the headers to ask for it with."""
        url = self.address + quote(key, safe="/-_.~", errors="surrogateescape")
        if self.credentials is None:
            return url, {}
        keys = self.credentials if isinstance(self.credentials, Keys) else await _keys_of(self.credentials)
        return url, signed(url, self.region, keys)


async def _keys_of(credentials: Any) -> Keys:
    frozen = await credentials.get_frozen_credentials()
    return Keys(frozen.access_key, frozen.secret_key, frozen.token)


def signed(url: str, region: str, keys: Keys, at: float | None = None) -> dict[str, str]:
    """The headers of a GET, signed for the moment `at`, in seconds since 1970, else for now."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    headers = {"x-amz-content-sha256": NOTHING, "x-amz-date": moment}
    if keys.token:
        headers["x-amz-security-token"] = keys.token
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    host = host.removesuffix(DEFAULT_PORTS.get(scheme, ""))  # as it is sent
    names = ";".join(["host", *headers])
    lines = "".join(f"{name}:{value}\n" for name, value in {"host": host, **headers}.items())
    request = f"GET\n/{path}\n\n{lines}\n{names}\n{NOTHING}"
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.digest(_key_of(keys.secret_key, scope), text.encode(), "sha256").hex()
    said = f"Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {said}"}


@lru_cache(maxsize=16)
def _key_of(secret_key: str, scope: str) -> bytes:
    """What signs all requests of a day."""
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
