"""A TCP proxy before a server that cuts, slows or answers for it, and notes what passed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self


class Proxy:
    """Forwards to a port of this machine. A context manager.

    Args:
        port: the server's.
        cut_after: bytes towards the server after which the connection is reset; what follows is refused until
            `restore`. None for no cut.
        answer: sent for every request instead of asking the server.
        pause: seconds before each 16 KiB towards the server.
    """

    def __init__(
        self, port: int, *, cut_after: int | None = None, answer: bytes | None = None, pause: float = 0.0
    ) -> None:
        self.target, self.cut_after, self.answer, self.pause = port, cut_after, answer, pause
        self.sent = bytearray()
        """All bytes that passed towards the server."""
        self.back_after: int | None = None
        """Bytes from the server after which the connection is closed, from now on; None for no cut."""
        self.came = 0
        """Bytes that passed back."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._count = threading.Lock()
        self._passed = 0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def restore(self) -> None:
        self.cut_after = None

    def versions(self) -> list[str]:
        """The `x-ms-version` of every request that passed."""
        lines = bytes(self.sent).split(b"\r\n")
        return [line.split(b":")[1].strip().decode() for line in lines if line.startswith(b"x-ms-version:")]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.answer is not None:
            try:
                while data := client.recv(65536):
                    self.sent += data
                    if b"\r\n\r\n" in data:
                        client.sendall(self.answer)
            except OSError:
                return
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        threading.Thread(target=self._back, args=(server, client), daemon=True).start()
        try:
            while data := client.recv(16384):
                time.sleep(self.pause)
                with self._count:
                    left = len(data) if self.cut_after is None else max(0, self.cut_after - self._passed)
                    self._passed += len(data[:left])
                    self.sent += data[:left]
                server.sendall(data[:left])
                if left < len(data):
                    break
        except OSError:
            pass
        for end in (server, client):
            _close(end)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                if self.back_after is not None and self.came + len(data) > self.back_after:
                    break
                self.came += len(data)
                client.sendall(data)
        except OSError:
            pass
        _close(client)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is closed at the other end
        end.shutdown(socket.SHUT_RDWR)
    end.close()
