"""Objects put into stores by fsspec's packages, fetched to files, and taken away.

As in `stores`: all of it happens in the thread of an `Ahead`, and what goes wrong is a StoreError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ferbatch.core.stores import urls
from ferbatch.core.stores.answers import StoreError, refuses_create, told
from ferbatch.core.stores.opening import AZURE, S3
from ferbatch.core.stores.packages import Stores
from ferbatch.core.stores.patience import in_turn

TOGETHER = 1_000  # objects that a request of S3's takes away at the most
PART, PARTS = 2**24, 4  # bytes of a part of a large object that is put, and how many of them are on their way


async def put(stores: Stores, local: str, file: bytes) -> None:
    """Have a file as an object: whole, or as what was there before. A large one is put in parts."""
    scheme, url = urls.scheme_of(file) or "", urls.whole(file)
    how = {"max_concurrency": PARTS} if scheme in AZURE else {"chunksize": PART}
    if scheme in S3:
        how["max_concurrency"] = PARTS
    with told():
        system = await stores.system(url)
        await system._put_file(local, system._strip_protocol(url), **how)
    kept, size = 0, os.path.getsize(local)
    try:
        kept = (await stores.look(file)).size
    except StoreError as error:
        if error.kind != "not_found":
            raise
    if kept != size:
        raise StoreError("unreadable", f"the store keeps {kept:,} bytes of {size:,}", passing=True)


async def write(stores: Stores, file: bytes, data: bytes) -> None:
    """Have a small object, in place of what was there."""
    with told():
        await stores.call(urls.scheme_of(file) or "", "pipe_file", urls.whole(file), data)


async def create(stores: Stores, file: bytes, data: bytes) -> bool | None:
    """Have a small object where there is none.

    False where there is one, None where the store does not take that condition.
    """
    scheme, url = urls.scheme_of(file) or "", urls.whole(file)
    only: dict[str, Any] = {"overwrite": False} if scheme in AZURE else {"mode": "create"}
    with told():
        try:
            await stores.call(scheme, "pipe_file", url, data, **only)
        except Exception as error:  # whatever the package says of it
            refused = refuses_create(error)
            if refused is None:
                raise
            return None if refused == "unknown" else False
    return True


async def get(stores: Stores, file: bytes, local: str) -> None:
    """Have an object as a file, however large it is."""
    with told():
        await stores.call(urls.scheme_of(file) or "", "get_file", urls.whole(file), local)
    size, whole = os.path.getsize(local), (await stores.look(file)).size
    if size != whole:
        raise StoreError("unreadable", f"the store sends {size:,} bytes and says {whole:,}", passing=True)


async def remove(stores: Stores, file: bytes) -> None:
    """Take an object away, if it is there."""
    with told(), suppress(FileNotFoundError):
        await stores.call(urls.scheme_of(file) or "", "rm_file", urls.whole(file))


async def is_there(stores: Stores, file: bytes) -> bool:
    """Whether there is such an object."""
    try:
        await stores.look(file)
    except StoreError as error:
        if error.kind == "not_found":
            return False
        raise
    return True


async def remove_all(stores: Stores, files: Sequence[bytes]) -> None:
    """Take away objects of one bucket that were listed; of S3 a thousand with a request."""
    scheme = urls.scheme_of(files[0]) or ""
    if scheme not in S3:
        await in_turn(lambda file: remove(stores, file), files, stores.connections)
        return
    system = await stores.system(urls.whole(files[0]))
    places = [system.split_path(urls.whole(file)) for file in files]
    for start in range(0, len(files), TOGETHER):
        those = {"Objects": [{"Key": key} for _, key, _ in places[start : start + TOGETHER]], "Quiet": True}
        with told():
            said = await system._call_s3("delete_objects", Bucket=places[0][0], Delete=those)
        if errors := said.get("Errors"):  # of some; the answer as a whole is one of success
            if errors[0].get("Code") == "AccessDenied":
                raise StoreError("permission", "the store refuses to delete it")
            raise StoreError("unreachable", "the store does not delete it", passing=True)
