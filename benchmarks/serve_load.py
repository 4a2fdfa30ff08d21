"""Load on `refinenet serve`: throughput, latency and refusals by concurrency, then by rate, against a real server.

    python benchmarks/serve_load.py [--model camvid] [--size 480x360] [--clients 1 2 ... 256] [--seconds 10]
        [--rounds 1] [--soak-minutes 0] [-- OPTIONS]

OPTIONS after `--` go to `refinenet serve`. Two experiments, over loopback, with a connection for each request:

- Concurrency: that many clients, each of which sends its next image when it has the answer to the last (a closed loop);
  a refused client waits as long as `Retry-After` says. They start within the first second, one after the other.
- Rate: images arrive at random (a Poisson process, an open loop) at shares of the highest throughput found before.
  Arrivals do not wait for answers, as those of many independent clients.

Every answer is compared with that to a single request. The last lines judge by ratios within rounds, as a shared
machine changes its speed: throughput under overload, refusals beside this process's own delays, and the longest
accepted wait. With `--soak-minutes`, images arrive at 70 % of the capacity, and the memory of the server's processes is
printed each minute.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from refinenet.datasets import draw_street
from refinenet.io.console import print_table

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RATES = (0.7, 1.5, 3.0)
HEADERS = ("Content-Type: image/jpeg", "Connection: close")
HEADING = ("", "images/s", "200", "503", "p50 ms", "p99 ms", "503 p50", "503 p99", "other")
MOST_OPEN = 256
REFUSED_WITHIN = 0.05


@dataclass
class Server:
    """A server process."""

    process: subprocess.Popen[str]
    port: int

    def family(self) -> list[int]:
        """Its process and all below it."""
        found = [self.process.pid]
        for parent in found:
            for path in Path(f"/proc/{parent}/task").glob("*/children"):
                found += [int(each) for each in path.read_text().split()]
        return found

    def memory(self) -> float:
        """Resident memory of all its processes in MB."""
        total = 0
        for process in self.family():
            status = Path(f"/proc/{process}/status").read_text()
            total += int(status.partition("VmRSS:")[2].split()[0])
        return total * 1024 / 1e6


def start(words: Sequence[str]) -> Server:
    command = [sys.executable, "-m", "refinenet", "serve", "--port", "0", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    lines = [process.stdout.readline().strip() for _ in range(2)]
    print(*lines, sep="\n", flush=True)
    found = re.search(r":(\d+)$", lines[0])
    assert found, "the server has not started"
    return Server(process, int(found[1]))


@dataclass
class Record:
    """What clients saw."""

    started: float = field(default_factory=time.perf_counter)
    accepted: list[float] = field(default_factory=list)
    """Seconds to each right answer."""
    refused: list[float] = field(default_factory=list)
    """Seconds to each refusal with Retry-After."""
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Accepted images a second."""
        return len(self.accepted) / max(self.seconds, 1e-9)


async def ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body
    finally:
        writer.close()


@dataclass
class Client:
    """Sends images and compares answers."""

    port: int
    requests: list[bytes]
    expected: list[bytes] = field(default_factory=list)

    async def learn(self) -> None:
        """Get the answers to single requests."""
        for request in self.requests:
            status, _, body = await ask(self.port, request)
            assert status == 200, body
            self.expected.append(body)

    async def send(self, record: Record) -> float:
        """Send one image; return the seconds after which to send the next one."""
        number, started = random.randrange(len(self.requests)), time.perf_counter()
        try:
            status, headers, body = await ask(self.port, self.requests[number])
        except (OSError, asyncio.IncompleteReadError) as error:
            record.faults[type(error).__name__] += 1
            return 1.0
        seconds = time.perf_counter() - started
        if status == 200 and body == self.expected[number]:
            record.accepted.append(seconds)
        elif status == 503 and "retry-after" in headers:
            record.refused.append(seconds)
        else:
            record.faults["another answer" if status == 200 else str(status)] += 1
        return float(headers.get("retry-after", "0"))


async def closed_loop(client: Client, count: int, seconds: float) -> Record:
    record = Record()
    end = record.started + seconds

    async def run(late: float) -> None:
        await asyncio.sleep(late)
        while time.perf_counter() < end:
            await asyncio.sleep(min(await client.send(record), end - time.perf_counter()))

    await asyncio.gather(*(run(number / count) for number in range(count)))
    record.seconds = time.perf_counter() - record.started
    return record


async def open_loop(
    client: Client, rate: float, seconds: float, watch: Callable[[float], Awaitable[None]] | None = None
) -> Record:
    record, running = Record(), set[asyncio.Task[float]]()
    due = record.started
    while due < record.started + seconds:
        due += random.expovariate(rate)
        await asyncio.sleep(max(0, due - time.perf_counter()))
        if watch is not None:
            await watch(due - record.started)
        if len(running) >= MOST_OPEN:
            record.faults["not sent, 256 are open"] += 1
            continue
        task = asyncio.create_task(client.send(record))
        running.add(task)
        task.add_done_callback(running.discard)
    # Accepted images are counted until the last arrival: afterwards the queue only empties.
    record.seconds = time.perf_counter() - record.started
    done = len(record.accepted)
    await asyncio.gather(*running)
    record.seconds *= len(record.accepted) / max(1, done) if done else 1
    return record


def percentile(values: list[float], share: float) -> str:
    if not values:
        return "-"
    return f"{1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))]:.0f}"


def row(name: str, record: Record) -> list[str]:
    accepted, refused = record.accepted, record.refused
    faults = ", ".join(f"{count} {word}" for word, count in record.faults.items()) or "-"
    waits = [percentile(accepted, 0.5), percentile(accepted, 0.99), percentile(refused, 0.5), percentile(refused, 0.99)]
    return [name, f"{record.rate:.2f}", str(len(accepted)), str(len(refused)), *waits, faults]


async def measure(server: Server, arguments: argparse.Namespace) -> None:
    client = Client(server.port, make_requests(arguments.size))
    await client.learn()
    rounds = list[dict[str, Record]]()
    lags = list[float]()
    watch = asyncio.create_task(measure_lag(lags))
    for number in range(arguments.rounds):
        steps = dict[str, Record]()
        for count in arguments.clients:
            steps[f"{count}"] = await closed_loop(client, count, arguments.seconds)
            await asyncio.sleep(1)
        capacity = max(record.rate for record in steps.values())
        for share in RATES:
            steps[f"x {share:g}"] = await open_loop(client, share * capacity, arguments.seconds)
            await asyncio.sleep(1)
        print(f"Round {number + 1}:", *(f"{name}: {step.rate:.2f}/s" for name, step in steps.items()), flush=True)
        rounds.append(steps)
    watch.cancel()
    merged = {name: merge([steps[name] for steps in rounds]) for name in rounds[0]}
    print_table("Load", HEADING, [row(name, record) for name, record in merged.items()])
    judge(rounds, lags)
    if arguments.soak_minutes:
        rates = [max(record.rate for record in steps.values()) for steps in rounds]
        await soak(server, client, 0.7 * statistics.median(rates), 60 * arguments.soak_minutes)


async def measure_lag(lags: list[float]) -> None:
    """Append by how much later than it asked for this process, which the machine shares, is woken."""
    while True:
        started = time.perf_counter()
        await asyncio.sleep(0.02)
        lags.append(time.perf_counter() - started - 0.02)


def merge(records: list[Record]) -> Record:
    return Record(
        accepted=[each for record in records for each in record.accepted],
        refused=[each for record in records for each in record.refused],
        faults=sum((record.faults for record in records), Counter()),
        seconds=sum(record.seconds for record in records),
    )


def judge(rounds: list[dict[str, Record]], lags: list[float]) -> None:
    """Print ratios within rounds: between them the speed of a shared machine changes."""
    total = merge([record for steps in rounds for record in steps.values()])
    heavy = [name for name in rounds[0] if name in ("x 3", "128", "256")]
    for name in heavy:
        shares = [steps[name].rate / max(record.rate for record in steps.values()) for steps in rounds]
        words = ", ".join(f"{100 * share:.0f}" for share in shares)
        print(f"Throughput at {name}: {100 * statistics.median(shares):.0f} % of the highest of its round ({words})")
    late = sum(seconds > REFUSED_WITHIN for seconds in total.refused)
    median, worst = percentile(total.refused, 0.5), percentile(total.refused, 0.99)
    print(
        f"503: {len(total.refused)}, p50 {median} ms, p99 {worst} ms, {late} later than {1000 * REFUSED_WITHIN:.0f} ms"
    )
    print(f"This process is woken late by {percentile(lags, 0.5)} ms (p50), {percentile(lags, 0.99)} ms (p99)")
    print(f"Longest accepted: {max(total.accepted):.1f} s. Other answers: {dict(total.faults)}")


async def soak(server: Server, client: Client, rate: float, seconds: float) -> None:
    minute = 0

    async def watch(elapsed: float) -> None:
        nonlocal minute
        if elapsed >= 60 * minute:
            print(f"{minute} min: {server.memory():.0f} MB", flush=True)
            minute += 1

    record = await open_loop(client, rate, seconds, watch)
    print(f"{minute} min: {server.memory():.0f} MB")
    print_table("At 70 % of the capacity", HEADING, [row("", record)])


def make_requests(size: str) -> list[bytes]:
    width, height = map(int, size.split("x"))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(8):
            path = Path(folder) / "street.jpg"
            Image.fromarray(draw_street(seed, height, width)[0]).save(path, quality=90)
            content = path.read_bytes()
            lines = ("POST /segment HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}", *HEADERS, "", "")
            found.append("\r\n".join(lines).encode() + content)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="camvid")
    parser.add_argument("--size", default="480x360")
    parser.add_argument("--clients", type=int, nargs="+", default=CONCURRENCIES)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--soak-minutes", type=float, default=0)
    parser.add_argument("options", nargs="*")
    arguments = parser.parse_args()
    server = start(["--model", arguments.model, *arguments.options])
    try:
        asyncio.run(measure(server, arguments))
    finally:
        server.process.terminate()
        started = time.monotonic()
        print(f"Exit code {server.process.wait()} after {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
