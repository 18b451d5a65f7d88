#!/usr/bin/env python3
"""Regenerate ../sandbox/data/events.jsonl.gz from what the official SDKs really send.

    .venv/bin/python make_dataset.py

Runs the recorder and the three drivers against it, replaces this machine's paths, refuses to write
if something that identifies the machine is left, and sorts by timestamp. See README.md for what has
to be installed first.
"""

import argparse
import collections
import getpass
import gzip
import json
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from record import dumps, loads, parse_timestamp

HERE = Path(__file__).resolve().parent
NODE = HERE.parent / "node"
OUTPUT = HERE.parent / "sandbox" / "data" / "events.jsonl.gz"
TOKEN = "phc_sandbox"


def record(directory, arguments):
    """Run every driver against a recorder and return the recorded lines."""
    recorded = Path(directory) / "events.jsonl"
    recorder = subprocess.Popen(
        [sys.executable, HERE / "record.py", "--out", recorded, "--trust-clocks"], stdout=subprocess.PIPE, text=True
    )
    handed = 0
    try:
        host = recorder.stdout.readline().strip()
        common = ["--host", host, "--token", TOKEN, "--span-days", "14", "--end", arguments.end]
        for command in (
            [sys.executable, HERE / "send_events.py", *common, "--count", "1400", "--seed", "1"],
            ["node", NODE / "send_node.mjs", *common, "--count", "700", "--seed", "2"],
            ["node", NODE / "browse.mjs", *common, "--visitors", "40", "--seed", "3"],
        ):
            source = Path(command[1]).parent  # stack traces name files relative to the working directory
            report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=source).stdout)
            handed += report.get("sent", 0)
            print({key: value for key, value in report.items() if key != "uuids"}, flush=True)
    finally:
        recorder.terminate()
        recorder.wait()
    rejected = recorder.stdout.read()
    if rejected:
        sys.exit(f"the recorder could not read everything:\n{rejected}")
    # Not splitlines(): the text has U+2028 in it, which JSON leaves as it is.
    lines = recorded.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if sum('"sdk":"posthog-js"' not in line for line in lines) != handed:
        sys.exit(f"{handed} events were handed to the SDKs, but not as many arrived")
    return lines


def scrub(line):
    """Replace the paths that stack traces carry."""
    for path, neutral in ((HERE, "/app"), (NODE, "/app"), (sys.prefix, "/app/.venv"), (sys.base_prefix, "/usr")):
        line = line.replace(str(path), neutral)
    return line


def check(text):
    """Exit if the data names this machine, its users or its directories."""
    identifying = [socket.gethostname(), str(Path.home()), str(HERE.parents[1]), str(HERE.parents[2])]
    patterns = [rf"(?<!\w){re.escape(name)}(?!\w)" for name in identifying]
    patterns += [r"/tmp/", r"/root\b", r"/home/", rf"\b{re.escape(getpass.getuser())}@", r"127\.0\.0\.1:\d"]
    for pattern in patterns:
        if found := re.search(f".{{0,60}}{pattern}.{{0,60}}", text):
            sys.exit(f"the data must not contain {pattern}: …{found[0]}…")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--end", default="2026-11-14T22:00:00+00:00", help="the newest regular event's time")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        lines = [scrub(line) for line in record(directory, arguments)]
    # posthog-js sends a request again when leaving a page cut it off; PostHog merges such repeats by uuid.
    events = list({event["uuid"]: event for event in map(loads, lines)}.values())
    events.sort(key=lambda event: (parse_timestamp(event["timestamp"])[0], event["uuid"]))
    text = "".join(dumps(event) + "\n" for event in events)
    check(text)

    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_bytes(gzip.compress(text.encode(), mtime=0))
    counts = collections.Counter((event["sdk"], event["event"]) for event in events)
    for (sdk, name), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0][1])):
        print(f"| {sdk} | `{name}` | {count} |")
    print(f"{len(events)} events and {len(lines) - len(events)} repeats, {len(text)} bytes, {OUTPUT.stat().st_size} compressed")


if __name__ == "__main__":
    main()
