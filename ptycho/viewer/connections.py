"""A server for a page beside a long run: few connections, none of them for long, and no fault that reaches the run."""

from __future__ import annotations

import contextlib
import http.server
import logging
import math
import socket
import socketserver
import threading
import time
from typing import Any

__all__ = ["LimitedServer"]

logger = logging.getLogger(__name__)

CONNECTION_LIMIT = 64
"""A browser opens six for a page; each takes a file descriptor and a thread of the run's process."""
REQUEST_SECONDS = 5.0
"""In which the first request of a connection has to be complete; a browser on this machine takes milliseconds."""
IDLE_SECONDS = 60.0
"""In which the next request has to be complete; a page in a hidden tab asks about once in ten seconds."""
SEND_SECONDS = 20.0
"""In which a response has to be read."""
_PAUSE_SECONDS = 0.2
"""Before connections are accepted again when there is no free file descriptor, which would else keep a core busy."""


class LimitedServer(http.server.ThreadingHTTPServer):
    """One thread for each of at most 64 connections; none of them keeps the program from ending."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, *arguments: Any) -> None:
        self._ends: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def server_bind(self) -> None:
        """Bind without asking anybody for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own; close it at once where there are too many."""
        with self._lock:
            full = len(self._ends) >= CONNECTION_LIMIT
            if not full:
                self._ends[request] = time.monotonic() + REQUEST_SECONDS
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._ends.pop(request, None)
        super().shutdown_request(request)

    def allow(self, connection: socket.socket, seconds: float = math.inf) -> None:
        """Close a connection unless this is called again for it within so many seconds."""
        with self._lock:
            if connection in self._ends:
                self._ends[connection] = time.monotonic() + seconds

    def service_actions(self) -> None:
        """Close connections that are overdue; the threads that wait for them then end."""
        with self._lock:
            now = time.monotonic()
            for connection, end in self._ends.items():
                if end < now:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note at the lowest level that a connection was lost in the middle of an answer: nobody reads it any more."""
        logger.debug("A request from %s was interrupted.", client_address, exc_info=True)

    def serve_until_closed(self) -> None:
        """Serve; what fails here ends the page and not the run."""
        try:
            self.serve_forever(0.1)
        except Exception:
            logger.warning("The page is no longer served; the run goes on.", exc_info=True)
