#!/usr/bin/env python3
"""Live events of the official SDKs through the whole chain, twice.

SDKs -> sandbox (capture endpoints) -> source-posthog read | destination-patterns write -> a webhook
in this script. Compares the uuids that the SDKs handed over with those that arrived.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROGRAMS = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"


class Webhook(BaseHTTPRequestHandler):
    """Keeps the records of every request."""

    records: list = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.records.extend(json.loads(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def send(command, host, count, seed):
    """Runs an SDK script and returns the uuids of the events that it has sent."""
    arguments = ["--host", host, "--token", "phc_sandbox", "--count", str(count), "--seed", str(seed), "--span-days", "2"]
    output = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, cwd=HERE).stdout
    report = json.loads(output.splitlines()[-1])
    assert report["sent"] == len(set(report["uuids"])) and not report["failures"], report
    print(f"{report['sent']} events sent with {report['sdk']}")
    return set(report["uuids"])


def sync(directory):
    """Runs read | write once."""
    files = ["--catalog", "catalog.json"]
    source = subprocess.Popen(
        [PROGRAMS / "source-posthog", "read", "--config", "config.json", *files, "--state", "state.json"],
        cwd=directory,
        stdout=subprocess.PIPE,
    )
    destination = subprocess.run(
        [PROGRAMS / "destination-patterns", "write", "--config", "patterns.json", *files, "--state-file", "state.json"],
        cwd=directory,
        stdin=source.stdout,
        stdout=subprocess.PIPE,
    )
    source.stdout.close()
    assert source.wait() == 0 and destination.returncode == 0, destination.stdout.decode()


def check(name, arrived, wanted, passed):
    missing, extra = wanted - arrived, arrived - wanted
    assert not missing and not extra, f"{name}: missing {sorted(missing)[:5]}, extra {sorted(extra)[:5]}"
    print(f"{name}: {len(wanted)} of {len(wanted)} events arrived")
    passed.append(name)


def main():
    python, node = [sys.executable, "send_events.py"], ["node", "../node/send_node.mjs"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sandbox = subprocess.Popen([PROGRAMS / "posthog-sandbox", "--port", "0", "--events", "0"], stdout=subprocess.PIPE)
    passed = []
    try:
        posthog = json.loads(sandbox.stdout.readline())
        with tempfile.TemporaryDirectory() as directory:
            write = lambda name, text: (pathlib.Path(directory) / name).write_text(text)
            write("config.json", json.dumps({"api_key": posthog["api_key"], "base_url": posthog["url"], "start_date": "2020-01-01T00:00:00Z", "method": {"type": "auto", "settle_minutes": 0}}))
            write("patterns.json", json.dumps({"webhook_url": f"http://127.0.0.1:{server.server_port}/hook"}))
            write("state.json", "")
            catalog = subprocess.run(
                [PROGRAMS / "source-posthog", "catalog", "--config", "config.json", "--streams", "events"],
                cwd=directory, check=True, stdout=subprocess.PIPE,
            ).stdout
            write("catalog.json", catalog.decode())

            uuids = send(python, posthog["url"], 300, 1) | send(node, posthog["url"], 300, 2)
            sync(directory)
            check("first sync", {record["uuid"] for record in Webhook.records}, uuids, passed)
            libraries = {record["properties"]["$lib"] for record in Webhook.records}
            assert libraries == {"posthog-python", "posthog-node"}, libraries

            before = len(Webhook.records)
            new = send(python, posthog["url"], 40, 3) | send(node, posthog["url"], 40, 4)
            sync(directory)
            check("second sync", {record["uuid"] for record in Webhook.records}, uuids | new, passed)
            late = {record["uuid"] for record in Webhook.records[before:]}
            assert new <= late, "an event of the second round did not come with the second sync"
    finally:
        sandbox.kill()
        server.shutdown()
    print(f"{len(passed)} passed, 0 failed")


if __name__ == "__main__":
    main()
