"""A Ray cluster to work on: one that runs already, or one that is started on this machine and ends with the run."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

from ferbatch.core.errors import UsageError, WorkerError
from ferbatch.core.names import escape
from ferbatch.core.options import RAY_DEVICES
from ferbatch.core.process import default_workers, signals_deferred
from ferbatch.model.devices import choose_precision

LOCAL = "local"  # the address of a cluster that is still to be started
STORE = 2**27, 2**26  # bytes of the shared memory of a cluster of our own, and more for each core
ANSWERS = 5.0  # seconds that an address may take to answer
MOST_WHY = 200  # characters of what Ray says
SETTINGS = {  # read when Ray is imported; what is set already stays
    "RAY_USAGE_STATS_ENABLED": "0",  # it would send them home
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # of what it would print of dead workers, which are replaced: all of it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what it will do by default, and warns of
}


class Cluster:
    """A cluster that this process is connected to."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        there = ray.cluster_resources()
        self.cpus, self.gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))

    def device(self, name: str) -> torch.device:
        """The device that all actors compute on, for auto | cpu | cuda; UsageError if the cluster has none such."""
        if name == "auto":
            name = "cuda" if self.gpus else "cpu"
        if name not in RAY_DEVICES or (name == "cuda" and not self.gpus):
            raise UsageError(f"device {escape(name)[:40]} is not available on the Ray cluster")
        return torch.device(name)

    def precision(self, name: str, device: torch.device, *, measured: bool = True) -> str:
        """As `choose_precision`, where this machine has such a device; else a node says it."""
        if device.type == "cpu" or torch.cuda.is_available():
            return choose_precision(name, device, measured=measured)
        with signals_deferred():
            there = self.ray.remote(num_gpus=1)(choose_precision).remote(name, device, measured=measured)
            return str(self.ray.get(there))

    def places(self) -> list[str]:
        """The ids of the nodes, each as often as it has CPUs, in turn."""
        nodes = [(node["NodeID"], int(node["Resources"].get("CPU", 0))) for node in self.ray.nodes() if node["Alive"]]
        return [id_ for turn in range(max((n for _, n in nodes), default=0)) for id_, n in nodes if turn < n]


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """The cluster at this address, or in RAY_ADDRESS; where neither says one, a new one on this machine.

    UsageError where Ray is not installed, or nothing answers there; WorkerError where none can be started.
    """
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    if not importlib.util.find_spec("ray"):
        raise UsageError("--engine ray needs ray: pip install 'ferbatch[ray]'")
    if address not in (LOCAL, "auto"):
        _check_answers(address)
    with ExitStack() as stack:
        options: Mapping[str, Any] = {"address": address}
        if address == LOCAL:
            # Its logs go with it. Sockets lie in it, whose paths may have 107 bytes.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fb", ignore_cleanup_errors=True))
            stack.enter_context(_temporary(folder))
            cpus = default_workers()
            store = STORE[0] + cpus * STORE[1]
            options = {**options, "num_cpus": cpus, "object_store_memory": store, "_temp_dir": folder}
        with signals_deferred():  # Ray takes the handler of one of them, and loses what others raise in it
            ray = _started(options)
            stack.callback(_ended, ray)
            cluster = Cluster(ray)
        yield cluster


def _check_answers(address: str) -> None:
    """UsageError unless something listens at HOST:PORT; Ray itself would try for a minute."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and "/" not in host):
        known = "auto or HOST:PORT, of the cluster that this machine is part of"
        raise UsageError(f"--ray-address is {known}, not '{escape(address)[:80]}'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no answer"
        raise UsageError(f"no Ray cluster at --ray-address {escape(address)[:80]}: {why}") from error


def _started(options: Mapping[str, Any]) -> Any:
    """Ray's module, connected; signals are handled as they were."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    ray: Any = importlib.import_module("ray")  # an extra, which takes half a second
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    quiet = {"include_dashboard": False} if options["address"] == LOCAL else {}
    try:
        ray.init(**options, **quiet, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # whatever it has against the address, the versions or this machine
        why = re.sub(r"\s+", " ", str(error))[:MOST_WHY] or type(error).__name__
        if options["address"] == LOCAL:
            raise WorkerError(f"Ray could not be started: {escape(why)}") from error
        raise UsageError(f"no Ray cluster at --ray-address {escape(options['address'])}: {escape(why)}") from error
    finally:
        for number, handler in before.items():
            _restore(number, handler)
    return ray


@contextmanager
def _temporary(folder: str) -> Iterator[None]:
    """Have processes that are started keep what is temporary in this folder: killed ones leave it."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before


def _restore(number: int, handler: Callable[..., Any] | int | None) -> None:
    with suppress(ValueError):  # of a thread that is not the main one, which Ray lets be as well
        signal.signal(number, handler)


def _ended(ray: Any) -> None:
    with signals_deferred(), suppress(Exception):  # a cluster that is gone need not be left
        ray.shutdown()
