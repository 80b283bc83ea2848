"""What a store far away costs: `python tests/fetching.py` labels a folder, and the same from S3 and the web, in turn.

The server is `stores.py` in a process of its own, which waits before each answer. It has to share the cores of this
machine, so what it used of them is told, and what the rate would be if it had not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ferbatch.commands.bench import samples
from ferbatch.core.process import default_workers

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


class Cost(NamedTuple):
    """Of one run."""

    rate: float  # images a second, of the labelling alone
    command: float  # microseconds of CPU an image, the start of the command and the listing among them
    server: float  # microseconds of CPU an image
    alone: float  # images a second, were the cores that the server used free for the command


def used(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def commands() -> float:
    """Seconds of CPU that all commands have used."""
    those = resource.getrusage(resource.RUSAGE_CHILDREN)
    return those.ru_utime + those.ru_stime


def label(source: str, n: int, model: str, server: int, address: str, folder: str) -> Cost:
    before, served, output = commands(), used(server), f"{folder}/labels.csv"
    args = ["label", source, "-o", output, "--overwrite", "--quiet", "--no-truth", "--model", model]
    environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": address}
    subprocess.run([sys.executable, "-m", "ferbatch", *args], env=environment, check=True)
    rate = json.loads(Path(f"{output}.run.json").read_text())["images_per_second"]
    served = used(server) - served
    alone = n / (n / rate - served / default_workers())
    return Cost(rate, (commands() - before) / n * 1e6, served / n * 1e6, alone)


def shown(model: str, name: str, costs: Sequence[Cost]) -> str:
    rate, command, server, alone = (median(column) for column in zip(*costs, strict=True))
    return f"{model:13} {name:7} {rate:9,.0f} {command:13,.0f} {server:12,.0f} {alone:14,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--wait", type=float, default=0.03, help="seconds before each answer")
    parser.add_argument("--model", action="append", help="more than once for several")
    parser.add_argument("--repeat", type=int, default=3, help="rounds, whose medians are shown")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faces = f"{folder}/faces"
        os.mkdir(faces)
        samples.make("faces", faces, asked.images)
        command = [sys.executable, str(Path(__file__).with_name("stores.py")), faces, str(asked.wait)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            address = server.stdout.readline().strip()
            sources = {"folder": faces, "S3": "s3://faces", "the web": f"{address}/faces/"}
            print("model         source   images/s  us an image    of server  without server   (load)")
            for model in asked.model or ["cnn-v3", "cnn-lite-v2"]:
                costs = dict[str, list[Cost]]()
                for _ in range(asked.repeat):
                    for name, source in sources.items():
                        cost = label(source, asked.images, model, server.pid, address, folder)
                        costs.setdefault(name, []).append(cost)
                for name, several in costs.items():
                    print(f"{shown(model, name, several)}   ({os.getloadavg()[0]:.1f})", flush=True)
            server.terminate()


if __name__ == "__main__":
    main()
