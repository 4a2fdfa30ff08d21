"""Slow clients against `refinenet serve`: how a normal client's latency and the server's memory change.

    python benchmarks/serve_attack.py [--model camvid] [--attacks heads bodies readers idle]
        [--connections 60 200 1000] [--seconds 15] [-- OPTIONS]

OPTIONS after `--` go to `refinenet serve`. A normal client, in a process of its own, sends one small image after the
other over a new connection each time, first alone, then while slow clients hold connections, and open a new one about
five seconds after one was cut:

- heads: a byte of the head every half second;
- bodies: a byte of the body every half second;
- readers: an image whose answer is large, of which a byte is read every half second; those that are refused, as
  the queue is full, give up, since more images are load, which `serve_load.py` measures;
- idle: nothing at all.

Latencies of the normal client alone are measured before each attack, so that drift of the machine's speed shows.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import multiprocessing
import os
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image
from serve_load import ask, make_requests, percentile, start

from refinenet.io.console import print_table

PACE = 0.5
RECONNECTS_AFTER = 5.0
HEAD = b"POST /segment?kind=overlay&kind=probabilities HTTP/1.1\r\nHost: 127.0.0.1\r\n"

Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RefusedError(Exception):
    """A client that is slow only in reading its answer has got none."""


async def drip(writer: asyncio.StreamWriter, begin: bytes) -> None:
    writer.write(begin)
    while True:
        await writer.drain()
        await asyncio.sleep(PACE)
        writer.write(b"a")


async def slow_head(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await drip(writer, HEAD + b"X-Slow: ")


async def slow_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await drip(writer, HEAD + b"Content-Type: image/png\r\nContent-Length: 100000\r\n\r\n")


async def slow_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    body = content.getvalue()
    try:
        writer.write(HEAD + b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        answer = await reader.readline()
    except OSError as error:
        raise RefusedError from error
    if b" 200 " not in answer:
        raise RefusedError
    while await reader.read(1):
        await asyncio.sleep(PACE)


async def idle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(1)


ATTACKS: dict[str, Attack] = {"heads": slow_head, "bodies": slow_body, "readers": slow_reader, "idle": idle}


async def hold(port: int, attack: Attack) -> None:
    """Attack, over a new connection whenever the last one was cut."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            try:
                await attack(reader, writer)
            finally:
                writer.close()
        except OSError:
            pass
        except RefusedError:
            return
        await asyncio.sleep(RECONNECTS_AFTER * random.uniform(0.5, 1.5))


def be_normal(port: int, request: bytes, seconds: float) -> tuple[list[float], int]:
    """Return the seconds of each answer, and the number of other answers than 200."""
    return asyncio.run(_be_normal(port, request, seconds))


async def _be_normal(port: int, request: bytes, seconds: float) -> tuple[list[float], int]:
    found, failed, end = [], 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        try:
            status, _, _ = await ask(port, request)
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        found.append(time.perf_counter() - started)
        failed += status != 200
        await asyncio.sleep(0.02)
    return found, failed


async def settle(port: int) -> None:
    """Wait until the images that slow readers have sent are computed."""
    request = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    end = time.perf_counter() + 60
    await asyncio.sleep(2)
    while time.perf_counter() < end and b"refinenet_queue_length 0" not in (await ask(port, request))[2]:
        await asyncio.sleep(PACE)


async def measure(arguments: argparse.Namespace) -> None:
    server = start(["--model", arguments.model, *arguments.options])
    request, rows = make_requests("64x48")[0], list[list[str]]()
    # The slow clients keep this process busy, which must not count as a wait for the server.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:

        async def ask_normally(seconds: float) -> tuple[list[float], int]:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(other, be_normal, server.port, request, seconds)

        try:
            await ask_normally(3)
            os.nice(19)  # slow clients elsewhere would not take processor time from the server
            for name in arguments.attacks:
                for count in arguments.connections:
                    alone, _ = await ask_normally(arguments.seconds / 2)
                    before = server.memory()
                    tasks = [asyncio.create_task(hold(server.port, ATTACKS[name])) for _ in range(count)]
                    await settle(server.port)
                    found, failed = await ask_normally(arguments.seconds)
                    grown = server.memory() - before
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    rows.append([f"{count} {name}", *compare(alone, found), str(failed), f"{grown:+.0f}"])
                    print(*rows[-1], sep="  ", flush=True)
                    await asyncio.sleep(1)
        finally:
            server.process.terminate()
            server.process.wait()
    heading = ("", "alone p50", "p99 ms", "attacked p50", "p99 ms", "ratio p50", "ratio p99", "failed", "MB")
    print_table("A normal client", heading, rows)


def compare(alone: list[float], attacked: list[float]) -> list[str]:
    """Return median and 99th percentile of both in milliseconds, and their ratios."""
    values = [[float(percentile(found, share)) for share in (0.5, 0.99)] for found in (alone, attacked)]
    ratios = [later / before for before, later in zip(*values, strict=True)]
    return [f"{value:.0f}" for pair in values for value in pair] + [f"{ratio:.2f}" for ratio in ratios]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="camvid")
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--connections", type=int, nargs="+", default=[60, 200, 1000])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("options", nargs="*")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
