"""The stores of Google and Azure, as those who make or use them test against: servers that the tests start."""

from __future__ import annotations

import importlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

ACCOUNT = "devstoreaccount1"  # of Azurite, whose key everybody knows
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Cloud:
    """A store with the bucket `bucket`, and how the tests put things there."""

    scheme: str
    address: str
    listing: str  # how the paths of requests for listings end

    def environment(self, address: str) -> Mapping[str, str]:
        """What a run needs to come here by way of an address."""
        if self.scheme == "gs":
            return {"STORAGE_EMULATOR_HOST": address, "NO_GCE_CHECK": "true"}
        said = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY}"
        return {"AZURE_STORAGE_CONNECTION_STRING": f"{said};BlobEndpoint={address}/{ACCOUNT};"}

    def put(self, key: str, data: bytes) -> None:
        if self.scheme == "gs":
            query = f"uploadType=media&name={quote(key, safe='')}"
            _ask("POST", f"{self.address}/upload/storage/v1/b/bucket/o?{query}", data)
        else:
            self.container.upload_blob(key, data, overwrite=True)

    def get(self, key: str) -> bytes:
        if self.scheme == "gs":
            return _ask("GET", f"{self.address}/download/storage/v1/b/bucket/o/{quote(key, safe='')}?alt=media")
        return bytes(self.container.download_blob(key).readall())

    @property
    def container(self) -> Any:
        """Azure's client of the bucket."""
        blob = importlib.import_module("azure.storage.blob")
        return blob.ContainerClient.from_connection_string(*self.environment(self.address).values(), "bucket")


def _ask(method: str, url: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=30) as answer:
        return bytes(answer.read())


@contextmanager
def google() -> Iterator[Cloud]:
    """The emulator of Google's store that is a package of Python's."""
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="it is installed with ferbatch[test]")
    pytest.importorskip("gcsfs", reason="gcsfs is installed with ferbatch[gcs]")
    port = _free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        yield Cloud("gs", f"http://127.0.0.1:{port}", "/o")
    finally:
        server.stop()


@contextmanager
def azure() -> Iterator[Cloud]:
    """Azurite, where its program is: `npm install -g azurite`."""
    pytest.importorskip("adlfs", reason="adlfs is installed with ferbatch[azure]")
    if not (program := shutil.which("azurite-blob")):
        pytest.skip("azurite-blob is not there (npm install -g azurite)")
    port, folder = _free_port(), tempfile.mkdtemp(prefix="ferbatch-az-")
    command = [program, "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"]
    running = subprocess.Popen([*command, "--blobPort", str(port)], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        cloud = Cloud("az", f"http://127.0.0.1:{port}", "/bucket")
        cloud.container.create_container()
        yield cloud
    finally:
        running.terminate()
        running.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


CLOUDS = {"gs": google, "az": azure}
