#!/usr/bin/env python3
"""PyAirbyte's destination smoke test against destination-patterns.

The test lets PyAirbyte choose how to write, which for streams with a primary key is `append_dedup`.
A webhook can only append, and the connector says so; here the choice is made for it.
"""

import functools
import json
import os
import pathlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

os.environ.update(AIRBYTE_OFFLINE_MODE="1", DO_NOT_TRACK="1")
os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import airbyte  # noqa: E402 - reads the environment when it is imported
from airbyte._util.destination_smoke_tests import run_destination_smoke_test  # noqa: E402
from airbyte.strategies import WriteStrategy  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAMS = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"


class Webhook(BaseHTTPRequestHandler):
    """Counts the records of every request."""

    records = 0
    # Every request has a thread of its own, and `+=` reads before it waits for what it adds.
    counting = threading.Lock()

    def do_POST(self):
        records = len(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        with self.counting:
            type(self).records += records
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    destination = airbyte.get_destination(
        "destination-patterns",
        config={"webhook_url": f"http://127.0.0.1:{server.server_port}/hook"},
        local_executable=PROGRAMS / "destination-patterns",
    )
    destination.write = functools.partial(destination.write, write_strategy=WriteStrategy.APPEND)
    result = run_destination_smoke_test(destination=destination, scenarios="all")
    assert result.success, result
    assert Webhook.records >= result.records_delivered > 0, (Webhook.records, result)
    print(f"{result.records_delivered} records of PyAirbyte's smoke test were delivered")
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
