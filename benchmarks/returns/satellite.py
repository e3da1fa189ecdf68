"""A satellite link on this machine: two TUN devices, and a process between them that delays, loses and paces.

What `tc netem` does in the kernel, where the kernel has it; here it is done outside, so any kernel with TUN
will do, and TCP is the kernel's own. One end is a network namespace, the other this machine. It needs root.
It also counts what left the site, and can be cut.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.sharedctypes import RawArray
from pathlib import Path

SITE_END, AZURE_END = "10.77.31.1", "10.77.31.2"
NAMESPACE = f"ship{os.getpid()}"
DEVICES = (f"ship{os.getpid()}", f"shore{os.getpid()}")
TUNSETIFF, TUN_WITHOUT_HEADER, PR_SET_PDEATHSIG = 0x400454CA, 0x1001, 1
SYN = 2


@dataclass(frozen=True)
class Sky:
    """What lies between the two ends, the same in both directions."""

    bits_per_second: float = 10e6
    """Of whole IP packets, headers included."""
    one_way_seconds: float = 0.3
    loss: float = 0.02
    queue_seconds: float = 0.6
    """Packets that would wait longer for their turn are dropped: a queue of one round trip."""


class Meter:
    """What left the site, and whether the link is cut; shared with the process between the ends."""

    def __init__(self) -> None:
        self._shared = RawArray(ctypes.c_uint64, 3)
        self._ends: dict[int, int] = {}

    @property
    def cut(self) -> bool:
        """Nothing comes through, though it leaves."""
        return bool(self._shared[0])

    @cut.setter
    def cut(self, cut: bool) -> None:
        self._shared[0] = cut

    @property
    def first(self) -> int:
        """Bytes that TCP sent for the first time."""
        return int(self._shared[1])

    @property
    def again(self) -> int:
        """Bytes that TCP sent again, since they were lost."""
        return int(self._shared[2])

    def count(self, packet: bytes) -> None:
        """An IPv4 packet that leaves the site (RFC 791, RFC 9293)."""
        tcp = packet[(packet[0] & 15) * 4 :]
        if packet[9] != socket.IPPROTO_TCP:
            return
        port, _, begin = struct.unpack_from("!HHI", tcp)
        size = len(tcp) - (tcp[12] >> 4) * 4
        if tcp[13] & SYN:
            self._ends[port] = begin + 1
        new = (begin + size - self._ends.get(port, begin)) % (1 << 32)
        new = min(new, size) if new < 1 << 31 else 0
        if new:
            self._ends[port] = begin + size
        self._shared[1] += new
        self._shared[2] += size - new


class Unavailable(RuntimeError):
    """No such link can be made here; the message says why."""


@contextlib.contextmanager
def satellite(sky: Sky) -> Iterator[Meter]:
    """A link is up: `run` starts programs at its site's end, AZURE_END is an address of this machine."""
    try:
        ends = [_tun(name) for name in DEVICES]
    except OSError as error:
        raise Unavailable(f"no TUN device can be made: {error}") from error
    _ip("netns", "add", NAMESPACE)
    try:
        _ip("link", "set", DEVICES[0], "netns", NAMESPACE)
        _ip("-n", NAMESPACE, "addr", "add", f"{SITE_END}/30", "dev", DEVICES[0])
        _ip("-n", NAMESPACE, "link", "set", DEVICES[0], "up")
        _ip("addr", "add", f"{AZURE_END}/30", "dev", DEVICES[1])
        _ip("link", "set", DEVICES[1], "up")
        meter = Meter()
        between = get_context("fork").Process(target=_carry, args=(ends, sky, meter), daemon=True)
        between.start()
        try:
            yield meter
        finally:
            between.kill()
            between.join()
    finally:
        _ip("netns", "del", NAMESPACE)
        for end in ends:
            os.close(end)


@contextlib.contextmanager
def cut(meter: Meter, after: float, seconds: float) -> Iterator[None]:
    """The link is cut once, after so many seconds, for so many."""

    def cutting() -> None:
        time.sleep(after)
        meter.cut = True
        time.sleep(seconds)
        meter.cut = False

    thread = threading.Thread(target=cutting)
    thread.start()
    yield
    thread.join()


def run(script: Path, arguments: Sequence[str]) -> str:
    """What a Python script prints that runs at the site's end."""
    at_site = ["ip", "netns", "exec", NAMESPACE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    return _run([*at_site, sys.executable, str(script), *arguments], environment)


def _tun(name: str) -> int:
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEADER))
    return handle


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} is not installed: install iproute2") from error
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:6])}: {done.stderr.strip()}")
    return done.stdout


def _carry(ends: Sequence[int], sky: Sky, meter: Meter) -> None:
    """Each packet that comes at one end: lost, or paced, delayed and put out at the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # A link does not wait for a busy machine; being nice counts only among the processes of one session.
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    chance = random.Random(1)  # noqa: S311 (it need not be secret)
    waiting: list[tuple[float, int, int, bytes]] = []
    free = dict.fromkeys(ends, 0.0)
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    count = 0
    while True:
        now = time.monotonic()
        pause = max(0.0, waiting[0][0] - now) if waiting else None
        for end in select.select(ends, [], [], pause)[0]:
            with contextlib.suppress(BlockingIOError):
                while packet := os.read(end, 65_536):
                    now = time.monotonic()
                    begins = max(now, free[end])
                    if end == ends[0]:
                        meter.count(packet)
                    if begins - now > sky.queue_seconds:
                        continue
                    free[end] = begins + 8 * len(packet) / sky.bits_per_second
                    if meter.cut or chance.random() < sky.loss:  # in the air: its turn is used up
                        continue
                    count += 1
                    heapq.heappush(waiting, (free[end] + sky.one_way_seconds, count, other[end], packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, end, packet = heapq.heappop(waiting)
            with contextlib.suppress(BlockingIOError, OSError):  # a full device loses it, as a radio would
                os.write(end, packet)
