"""A web server in a thread that behaves as it is told, for tests of fetching."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """One file of the site, and how it is served.

    cuts: after how many bytes each of the first answers breaks off. busy: so many 503 come first.
    """

    content: bytes
    etag: str = '"one"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    busy: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    wrong_range: bool = False
    trickle_seconds: float = 0


@dataclass
class Site:
    """The pages by path, and the Range header of every request there was."""

    url: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append((self.path, self.headers.get("Range")))
            page = site.pages.get(self.path)
            if page is None:
                self.send_error(404)
            elif page.busy:
                page.busy -= 1
                self.send_error(503)
            else:
                answer(self, page)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(handler: BaseHTTPRequestHandler, page: Page) -> None:
    start = 0
    asked = handler.headers.get("Range", "")
    same = handler.headers.get("If-Range") == page.etag
    if page.ranges and asked and same:
        start = int(asked.removeprefix("bytes=").rstrip("-"))
    body = page.content[start:]
    handler.send_response(206 if start and page.status == 200 else page.status)
    if start:
        first = 0 if page.wrong_range else start
        total = len(page.content)
        handler.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
    length = len(body) if page.length is None else page.length
    handler.send_header("Content-Length", str(length))
    if page.etag:
        handler.send_header("ETag", page.etag)
    for name, value in page.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    cut = page.cuts.pop(0) if page.cuts else len(body)
    try:
        if page.trickle_seconds:
            for k in range(len(body)):
                handler.wfile.write(body[k : k + 1])
                time.sleep(page.trickle_seconds)
        handler.wfile.write(body[:cut])
    except OSError:
        pass  # the client has gone: that is what some tests want
    handler.close_connection = True
