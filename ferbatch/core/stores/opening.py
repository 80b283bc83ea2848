"""The filesystems of fsspec's packages, opened so that whoever asks them decides how often a store is asked again."""

from __future__ import annotations

import importlib
from typing import Any

from ferbatch.core.stores.web import CONNECT, READ

S3, GCS, AZURE = ("s3", "s3a"), ("gs", "gcs"), ("az", "abfs", "abfss")
TRIED = 3  # times that botocore asks for what s3fs asks for once


def opened(scheme: str, account: str, connections: int) -> Any:
    """A filesystem of fsspec's, for the loop that runs.

    scheme: a key of STORES.
    account: of Azure, where the path says one.
    connections: at the most, where the package lets that be said.
    """
    fsspec = importlib.import_module("fsspec")
    # One of Azure's wants a loop at the end to close itself with, be there something to close or not.
    works = fsspec.get_filesystem_class(scheme).async_impl and scheme not in AZURE
    options: dict[str, Any] = {"asynchronous": True} if works else {}
    if scheme in AZURE and account:
        options["account_name"] = account
    if scheme in GCS:  # which would wait for five minutes
        aiohttp = importlib.import_module("aiohttp")
        options["requests_timeout"] = aiohttp.ClientTimeout(sock_connect=CONNECT, sock_read=READ)
    if scheme in S3:
        timeouts = {"connect_timeout": CONNECT, "read_timeout": READ}
        options["config_kwargs"] = {
            "max_pool_connections": connections,
            "retries": {"max_attempts": TRIED},
            **timeouts,
        }
    return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)


async def settle(scheme: str, system: Any) -> None:
    """Have a package ask once, and without keys where there are none, as anybody may.

    s3fs asks once, for botocore asks again. Azure's would wait a minute and a half in all before it fails. That of
    Google cannot be told: what it says was asked for six times.
    """
    if scheme in S3:
        system.retries = 1
        await system.set_session()
        system.anon = await system.session.get_credentials() is None
        if system.anon:
            await system.set_session(refresh=True)
    if scheme in AZURE:
        clients = system.service_client if isinstance(system.service_client, list) else [system.service_client]
        for client in clients:
            client._config.retry_policy.total_retries = 0
