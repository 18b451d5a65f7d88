#!/usr/bin/env python3
"""Record what PostHog SDKs send: a capture server that writes one JSON object per event.

It answers the endpoints the SDKs call (capture, flags, remote config), undoes every transport
encoding they use, and normalises each event the way PostHog's ingestion does: the uuid is kept or
made, `$set`, `$set_once` and `$unset` at the top level move into the properties, the elements chain
leaves the properties, `$ip` is added, and the timestamp becomes RFC 3339 in UTC.

    record.py --out events.jsonl [--port 0] [--trust-clocks]

prints its address as the first line and runs until it gets SIGTERM. Standard library only.
"""

import argparse
import base64
import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
import uuid
import zlib
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CAPTURE_PATHS = {"/batch", "/capture", "/e", "/i/v0/e", "/track"}
REMOTE_CONFIG = {
    "supportedCompression": ["gzip", "gzip-js"],
    "hasFeatureFlags": True,
    "autocapture_opt_out": False,
    "autocaptureExceptions": True,
    "captureDeadClicks": True,
    "capturePerformance": {"network_timing": False, "web_vitals": True},
    "heatmaps": False,
    "sessionRecording": False,
    "surveys": False,
    "siteApps": [],
    "isAuthenticated": False,
    "defaultIdentifiedOnly": True,
}
SDK_OF_LIB = {"web": "posthog-js"}
TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:?\d\d)?$")
# Floats travel through Python as marked strings so that "1e-7" is not respelled "1e-07".
FLOAT_MARK = "\x00float\x00"
MARKED_FLOAT = re.compile(r'"\\u0000float\\u0000([^"]+)"')


def loads(text):
    """Parse JSON and keep the spelling of every number."""
    return json.loads(text, parse_float=lambda spelling: FLOAT_MARK + spelling)


def dumps(value):
    """Write JSON on one line, with numbers spelled as `loads` found them."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return MARKED_FLOAT.sub(r"\1", text)


def uuid7(at):
    """A UUIDv7 for a moment; `uuid.uuid7` exists only from Python 3.14 on."""
    value = int(at.timestamp() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


def parse_timestamp(text):
    """The moment a timestamp names, in UTC, and how many fraction digits it was sent with."""
    match = TIMESTAMP.match(text.strip())
    if not match:
        raise ValueError(f"not a timestamp: {text!r}")
    day, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in (None, "Z") else zone
    zone = zone if ":" in zone else zone[:3] + ":" + zone[3:]
    moment = datetime.fromisoformat(f"{day}T{clock}{zone}").astimezone(timezone.utc)
    digits = (fraction or "")[:6]
    return moment + timedelta(microseconds=int(digits.ljust(6, "0"))), len(digits)


def format_timestamp(moment, digits):
    """RFC 3339 in UTC with `digits` fraction digits."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{moment.microsecond:06d}"[: digits + 1] if digits else "") + "Z"


def elements_chain(elements):
    """The chain text PostHog stores for an `$elements` array (the form older SDKs send)."""
    quote = lambda value: str(value).replace('"', '\\"')
    parts = []
    for element in elements:
        classes = element.get("attr__class") or []
        classes = classes.split(" ") if isinstance(classes, str) else classes
        attributes = {key: value for key, value in element.items() if key.startswith("attr__")}
        attributes["nth-child"] = element.get("nth_child", 0)
        attributes["nth-of-type"] = element.get("nth_of_type", 0)
        for key, source in (("text", "$el_text"), ("href", "attr__href"), ("attr_id", "attr__id")):
            if element.get(source):
                attributes[key] = element[source]
        head = ".".join([element.get("tag_name", ""), *(c.replace('"', "") for c in sorted(classes))])
        parts.append(head + ":" + "".join(f'{quote(k)}="{quote(v)}"' for k, v in sorted(attributes.items())))
    return ";".join(parts)


def normalise(event, sent_at, now, trust_clocks):
    """Turn one event as sent into one event as stored."""
    properties = dict(event.get("properties") or {})
    for name in ("$set", "$set_once"):
        if event.get(name):
            properties[name] = {**(properties.get(name) or {}), **event[name]}
    if event.get("$unset"):
        properties["$unset"] = event["$unset"]
    chain = properties.pop("$elements_chain", None)
    elements = properties.pop("$elements", None)
    if chain is None and elements:
        chain = elements_chain(elements)
    properties.setdefault("$ip", "127.0.0.1")

    sent, _ = parse_timestamp(sent_at) if sent_at else (now, 0)
    trust_clocks = trust_clocks or properties.get("$ignore_sent_at") is True
    if event.get("timestamp"):
        moment, digits = parse_timestamp(event["timestamp"])
        if not trust_clocks:
            moment, digits = moment + (now - sent), max(digits, 3)
    else:
        moment = sent if trust_clocks else now
        moment, digits = moment - timedelta(milliseconds=event.get("offset") or 0), 3

    lib = properties.get("$lib") or "unknown"
    stored = {
        "uuid": event.get("uuid") or uuid7(moment),
        "event": event["event"],
        "distinct_id": str(event.get("distinct_id") or properties["distinct_id"]),
        "properties": properties,
        "timestamp": format_timestamp(moment, digits),
        "sdk": SDK_OF_LIB.get(lib, lib),
    }
    if chain:
        stored["elements_chain"] = chain
    return stored


def decode_body(body, encoding, compression):
    """The JSON text of a request body: gzip, gzip-js, base64 in a form field, or plain."""
    if encoding == "gzip" or compression in ("gzip", "gzip-js") or body[:2] == b"\x1f\x8b":
        body = zlib.decompress(body, wbits=47)
    if body.startswith(b"data="):
        body = parse_qs(body.decode())["data"][0].encode()
    if compression == "base64":
        body = base64.b64decode(body.replace(b" ", b"+"))
    return body.decode()


def flags_for(distinct_id):
    """A `/flags/` response: the same person always gets the same flags."""
    draw = hashlib.sha256(distinct_id.encode()).digest()
    variants = {"new-checkout": None, "cta-copy": ["control", "short", "long"][draw[0] % 3], "dark-mode": None}
    flags = {}
    for number, (key, variant) in enumerate(variants.items(), start=1):
        enabled = draw[number] % 3 > 0
        code = "condition_match" if enabled else "no_condition_match"
        flags[key] = {
            "key": key,
            "enabled": enabled,
            "variant": variant if enabled else None,
            "reason": {"code": code, "condition_index": 0, "description": code.replace("_", " ")},
            "metadata": {"id": number, "version": number + 1, "description": None, "payload": None},
        }
    return {
        "flags": flags,
        "errorsWhileComputingFlags": False,
        "requestId": str(uuid.uuid4()),
        "evaluatedAt": int(time.time() * 1000),
    }


class Recorder(BaseHTTPRequestHandler):
    """Answers one SDK connection; the server object carries the output file and its lock."""

    protocol_version = "HTTP/1.1"

    def do_OPTIONS(self):
        self.reply(b"")

    def do_GET(self):
        path = urlsplit(self.path).path
        config = json.dumps(REMOTE_CONFIG)
        if re.fullmatch(r"/array/[^/]+/config", path):
            self.reply(config.encode())
        elif match := re.fullmatch(r"/array/([^/]+)/config\.js", path):
            script = f"(window._POSTHOG_REMOTE_CONFIG=window._POSTHOG_REMOTE_CONFIG||{{}})[{json.dumps(match[1])}]="
            self.reply(f"{script}{{config:{config},siteApps:[]}};".encode(), content_type="text/javascript")
        elif path.startswith("/api/surveys"):
            self.reply(b'{"surveys":[]}')
        else:
            self.reply(b"{}", status=404)

    def do_POST(self):
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            text = decode_body(body, self.headers.get("Content-Encoding"), query.get("compression"))
            if url.path.rstrip("/") in CAPTURE_PATHS:
                self.record(loads(text))
                self.reply(b'{"status":1}')
            elif url.path.rstrip("/") in ("/flags", "/decide"):
                self.reply(json.dumps(flags_for(str(loads(text).get("distinct_id")))).encode())
            else:
                self.reply(b"{}", status=404)
        except (KeyError, ValueError, zlib.error) as error:
            print(f"rejected {self.path}: {error!r}", flush=True)
            self.reply(json.dumps({"detail": repr(error)}).encode(), status=400)

    def record(self, payload):
        """Write the events of one request, or none of them."""
        now = datetime.now(timezone.utc)
        batch = payload if isinstance(payload, list) else payload.get("batch", [payload])
        common = payload.get("sent_at") if isinstance(payload, dict) else None
        lines = [
            dumps(normalise(event, common or event.get("sent_at"), now, self.server.trust_clocks)) for event in batch
        ]
        with self.server.lock:
            self.server.out.writelines(line + "\n" for line in lines)

    def reply(self, body, status=200, content_type="application/json"):
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin") or "*")
        self.send_header("Access-Control-Allow-Credentials", "true")
        self.send_header("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
        requested = self.headers.get("Access-Control-Request-Headers")
        self.send_header("Access-Control-Allow-Headers", requested or "Content-Type")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Stay quiet; rejected requests are printed where they happen."""


class Server(ThreadingHTTPServer):
    """A server that does not report a client closing its connection as an error."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="file to write events to, replaced if it exists")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1, 0 for a free one")
    parser.add_argument(
        "--trust-clocks",
        action="store_true",
        help="do not shift timestamps by the difference between sent_at and now, for senders on this "
        "machine (where it is only latency) or on a simulated clock (where it is the simulation)",
    )
    arguments = parser.parse_args()
    server = Server(("127.0.0.1", arguments.port), Recorder)
    server.lock = threading.Lock()
    server.trust_clocks = arguments.trust_clocks
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    with open(arguments.out, "w", encoding="utf-8") as server.out:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
