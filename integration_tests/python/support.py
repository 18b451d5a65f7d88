"""What the tests share: the built programs, the PostHog stand-in and a webhook."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAMS = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute() / "debug"
SOURCE = PROGRAMS / "source-posthog"
DESTINATION = PROGRAMS / "destination-patterns"
START = "2020-01-01T00:00:00Z"


class PostHog:
    """A running stand-in, by what its first line says: url, project, api_key, token."""

    def __init__(self, ready):
        self.url, self.project, self.api_key, self.token = (ready[key] for key in ("url", "project", "api_key", "token"))

    def config(self, **other):
        """A configuration of the source that leaves nothing for the next sync."""
        method = {"type": "auto", "settle_minutes": 0}
        return {"api_key": self.api_key, "base_url": self.url, "start_date": START, "method": method, **other}

    def capture(self, events):
        """Takes in events as an SDK sends them."""
        self._ask("/batch/", {"api_key": self.token, "batch": events})

    def delete_persons(self, distinct_ids, with_events):
        """Deletes the persons of distinct ids; their events as well, if that is asked for."""
        body = {"distinct_ids": distinct_ids, "delete_events": with_events}
        return self._ask(f"/api/projects/{self.project}/persons/bulk_delete/", body)

    def select(self, columns, table):
        """All rows of a table, read without the connector: lists in the order of `columns`."""
        query = {"kind": "HogQLQuery", "query": f"SELECT {columns} FROM {table} LIMIT 50000"}
        return self._ask(f"/api/projects/{self.project}/query/", {"query": query, "refresh": "force_blocking"})["results"]

    def about_project(self):
        """The project, as the API describes it."""
        return self._ask(f"/api/projects/{self.project}/")

    def _ask(self, path, body=None):
        headers = {"authorization": f"Bearer {self.api_key}", "content-type": "application/json"}
        request = urllib.request.Request(self.url + path, body and json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


@contextlib.contextmanager
def posthog(*arguments):
    """Starts a stand-in with arguments such as `"--events", "500"` and stops it at the end."""
    with subprocess.Popen([PROGRAMS / "posthog-sandbox", "--port", "0", *arguments], stdout=subprocess.PIPE) as process:
        try:
            yield PostHog(json.loads(process.stdout.readline()))
        finally:
            process.kill()


def postgres_programs():
    """Where initdb and pg_ctl are; Debian keeps them off the path."""
    places = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: int(place.parent.name))
    on_path = shutil.which("initdb")
    assert places or on_path, "Postgres is not installed"
    return places[-1] if places else pathlib.Path(on_path).parent


@contextlib.contextmanager
def postgres(directory):
    """Starts an empty Postgres, which refuses to run as root; yields its port."""
    programs, data = postgres_programs(), directory / "data"
    as_user = []
    if os.getuid() == 0:
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(directory, "postgres")
        # Tests of pytest are in directories that only their user may enter.
        for parent in [directory, *directory.parents][:3]:
            parent.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run([*as_user, programs / "initdb", "-D", data, "-A", "trust", "-U", "posthog", "-E", "UTF8", "--no-sync"], **quiet)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories="
    control = [*as_user, programs / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-l", directory / "log", "-o", options, "start"], **quiet)
    try:
        yield port
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)


@contextlib.contextmanager
def http_server(handler):
    """Serves with `handler` on a free port of this machine; yields the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class Handler(BaseHTTPRequestHandler):
    """Reads bodies, answers, and writes no log."""

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def objects(text):
    """Parses JSON as PostHog stores it; NaN and Infinity, which JSON lacks, become None."""
    return json.loads(text, parse_constant=lambda _: None) if text else None
