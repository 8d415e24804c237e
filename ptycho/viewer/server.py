"""The page's server: this machine alone, a secret in the address, and nothing but reading."""

from __future__ import annotations

import hmac
import http.server
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ptycho.errors import ConfigError
from ptycho.viewer.assets import colour_maps, page_files
from ptycho.viewer.connections import IDLE_SECONDS, REQUEST_SECONDS, SEND_SECONDS, LimitedServer
from ptycho.viewer.frames import frame, plain_json
from ptycho.viewer.picture import Picture
from ptycho.viewer.stage import Stage

__all__ = ["PageServer"]

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_OWN_NAMES = ("127.0.0.1", "localhost")
"""What the browser may call this machine: any other name was made to point here by somebody else."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_BINARY, _JSON = "application/octet-stream", "application/json"
_SLOWEST_PACE = 10.0

Query = Mapping[str, str]
Answer = tuple[bytes, str]


class PageServer:
    """Serves one stage on this machine until it is closed.

    Parameters
    ----------
    stage : what is shown.
    port : none takes a free one.

    Attributes
    ----------
    url : address of the page, with its secret.

    Raises
    ------
    ConfigError
        The port is taken, or may not be used.
    """

    def __init__(self, stage: Stage, port: int | None = None) -> None:
        self._secret = secrets.token_urlsafe(18)
        try:
            self._server = _LocalServer((_LOOPBACK, port or 0), _Handler)
        except OSError as error:
            raise ConfigError(
                f"port = {port} cannot be used ({error.strerror or error}): choose another, or leave it out."
            ) from error
        self._server.stage, self._server.secret = stage, self._secret
        self.url = f"http://{_LOOPBACK}:{self._server.server_address[1]}/{self._secret}/"
        threading.Thread(target=self._server.serve_until_closed, name="page", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()


class _LocalServer(LimitedServer):
    stage: Stage
    secret: str


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET below the secret, from the stage and from the files of the page."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ptycho", ""
    timeout = IDLE_SECONDS
    server: _LocalServer
    _served = False

    def handle_one_request(self) -> None:
        """Read a request and answer it, each within its time."""
        self.server.allow(self.connection, IDLE_SECONDS if self._served else REQUEST_SECONDS)
        super().handle_one_request()

    def do_GET(self) -> None:
        """Answer one request."""
        began = time.thread_time()
        self.server.allow(self.connection)
        try:
            status, (body, kind) = HTTPStatus.OK, self._answer()
            self._served = True
        except _RefusedError as refusal:
            self.close_connection = self.close_connection or not self._served
            status, (body, kind) = refusal.status, (refusal.status.phrase.encode(), "text/plain; charset=utf-8")
        except Exception:
            logger.warning("The page could not be answered.", exc_info=True)
            status, body, kind = HTTPStatus.INTERNAL_SERVER_ERROR, b"Internal error", "text/plain; charset=utf-8"
        self.server.stage.charge(time.thread_time() - began)
        self._send(status, body, kind)

    def _answer(self) -> Answer:
        host = self.headers.get("Host", "").rpartition(":")
        if (host[0] or host[2]).lower() not in _OWN_NAMES:
            raise _RefusedError(HTTPStatus.MISDIRECTED_REQUEST)
        address = urlsplit(self.path)
        _, secret, name = (
            ("/" + address.path.lstrip("/")).split("/", 2) if address.path.count("/") > 1 else ("", "", "")
        )
        if not hmac.compare_digest(secret.encode(), self.server.secret.encode()):
            raise _RefusedError(HTTPStatus.FORBIDDEN)
        files = page_files()
        try:
            query = {key: values[-1] for key, values in parse_qs(address.query, max_num_fields=12).items()}
            return files[name] if name in files else _ROUTES[name](self.server.stage, query)
        except LookupError as error:
            raise _RefusedError(HTTPStatus.NOT_FOUND) from error
        except ValueError as error:
            raise _RefusedError(HTTPStatus.BAD_REQUEST) from error

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.server.allow(self.connection, SEND_SECONDS)
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no GET, or no HTTP, in plain words; the connection ends."""
        self.close_connection = True
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._send(status, status.phrase.encode(), "text/plain; charset=utf-8")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the address holds the secret."""


class _RefusedError(Exception):
    """A request that is not answered."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


def _about(stage: Stage, query: Query) -> Answer:
    return plain_json({**stage.about, "patterns": "" if stage.patterns is None else stage.patterns.note()}), _JSON


def _state(stage: Stage, query: Query) -> Answer:
    pace = min(max(float(query.get("pace", 0)), 0.0), _SLOWEST_PACE)
    client = query.get("client", "")[:32]
    return plain_json(stage.wait(client, int(query.get("after", -1)), pace, query.get("looks") == "1")), _JSON


def _farewell(stage: Stage, query: Query) -> Answer:
    stage.dismiss(query.get("client", "")[:32])
    return b"{}", _JSON


def _picture(stage: Stage, query: Query) -> Answer:
    picture = _pictured(stage, query)
    hand = [] if stage.patterns is None else stage.patterns.at_hand(len(picture.positions))
    return plain_json({**picture.header(query.get("flat") == "1"), "at_hand": hand}), _JSON


def _tile(stage: Stage, query: Query) -> Answer:
    pyramid = _pictured(stage, query).pyramid(query["image"], query.get("flat") == "1")
    level, row, column = (int(query[name]) for name in ("level", "row", "column"))
    return frame({}, {"tile": pyramid.tile(level, row, column)}), _BINARY


def _places(stage: Stage, query: Query) -> Answer:
    return frame({}, {"places": _pictured(stage, query).places()}), _BINARY


def _pattern(stage: Stage, query: Query) -> Answer:
    if stage.patterns is None:
        raise LookupError("patterns")
    return frame(*stage.patterns.at(_pictured(stage, query), int(query["index"]))), _BINARY


def _colours(stage: Stage, query: Query) -> Answer:
    return plain_json(colour_maps()), _JSON


def _pictured(stage: Stage, query: Query) -> Picture:
    return stage.picture(int(query["version"]))


_ROUTES: Mapping[str, Callable[[Stage, Query], Answer]] = {
    "about": _about,
    "state": _state,
    "farewell": _farewell,
    "picture": _picture,
    "tile": _tile,
    "places": _places,
    "pattern": _pattern,
    "colours": _colours,
}
