"""What lies beside an object and begins as it is called, by one listing, of stores that list what was put just now."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ferbatch.core.records import Version
from ferbatch.core.stores import urls
from ferbatch.core.stores.answers import StoreError, told, version_in
from ferbatch.core.stores.opening import GCS, S3
from ferbatch.core.stores.packages import Stores

MOST = 2_000  # objects of a listing; where there are more, to look at some of them one by one costs less


async def beside(stores: Stores, path: str) -> dict[str, Version] | None:
    """The objects whose paths begin with this one, with what they are; None where no listing says it.

    path: what they begin with, as `objects.check` has it.
    """
    scheme, _, rest = path.partition("://")
    if scheme in S3 and not urls.is_ordered(path.encode()):  # it lists whole folders alone
        return None
    bucket, _, key = rest.partition("/")
    of_scheme = _of_s3 if scheme in S3 else _of_gcs if scheme in GCS else _of_azure
    found: dict[str, Version] = {}
    try:
        with told():
            async for name, version in of_scheme(stores, path, bucket, key):
                found[f"{scheme}://{bucket}/{name}"] = version
                if len(found) > MOST:
                    return None
    except StoreError as error:
        if error.kind != "not_found":
            raise
    return found


async def _of_s3(stores: Stores, path: str, bucket: str, key: str) -> AsyncIterator[tuple[str, Version]]:
    system = await stores.system(path)
    async for info in system._iterdir(bucket, prefix=key, delimiter="/"):
        if info["type"] != "directory":
            yield info["name"][len(bucket) + 1 :], version_in(info, info["size"])


async def _of_gcs(stores: Stores, path: str, bucket: str, key: str) -> AsyncIterator[tuple[str, Version]]:
    above, _, name = key.rpartition("/")
    folder = f"{path[: len(path) - len(key)]}{above}"
    for info in await stores.call("gs", "ls", folder, detail=True, prefix=name, max_results=MOST + 1):
        if info["type"] != "directory":
            yield info["name"][len(bucket) + 1 :], version_in(info, info["size"])


async def _of_azure(stores: Stores, path: str, bucket: str, key: str) -> AsyncIterator[tuple[str, Version]]:
    system = await stores.system(path)
    container = system._strip_protocol(path).partition("/")[0]
    clients = system.service_client if isinstance(system.service_client, list) else [system.service_client]
    async with clients[0].get_container_client(container) as client:
        async for blob in client.list_blobs(name_starts_with=key):
            yield blob.name, version_in({"etag": blob.etag}, blob.size)
