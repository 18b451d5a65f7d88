"""Requests to one PostHog, careful with its limits and with the key."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from recorder import Recorder

ATTEMPTS = 5
TIMEOUT_SECONDS = 90
LONGEST_WAIT_SECONDS = 600
LARGEST_BYTES = 100_000_000


class CannotRun(Exception):
    """Nothing more can be asked; the text is a sentence for the user."""


class Unanswered(Exception):
    """A question that this account, this key or this instance has no answer to."""


class Interrupted(Exception):
    """The user pressed Ctrl-C."""


@dataclass
class Reply:
    """A response. `body` is parsed JSON, or text if it is none; `raw` the bytes of a file."""

    status: int
    headers: dict[str, str]
    body: Any
    raw: bytes = field(default=b"", repr=False)

    def get(self, name: str) -> Any:
        """A field of the body, if that is an object."""
        return self.body.get(name) if isinstance(self.body, dict) else None


class _Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are answers: what follows them must not carry the key."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Client:
    """One project of one PostHog."""

    def __init__(self, base_url: str, key: str, project: str, recorder: Recorder, stop: threading.Event) -> None:
        self.base_url, self.project, self.recorder, self.stop = base_url.rstrip("/"), project, recorder, stop
        self._key = key
        self._opener = urllib.request.build_opener(_Stay)
        self.closing = False

    def wait(self, seconds: float) -> None:
        """Waits; Ctrl-C ends it at once."""
        if self.closing:
            time.sleep(min(seconds, 5))
        elif self.stop.wait(seconds):
            raise Interrupted

    def _send(self, method: str, url: str, body: Any, with_key: bool) -> Reply:
        headers = {"accept": "application/json", "user-agent": "source-posthog try-posthog"}
        if with_key:
            headers["authorization"] = f"Bearer {self._key}"
        data = None
        if body is not None:
            data, headers["content-type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                status, got, raw = response.status, response.headers, response.read(LARGEST_BYTES)
        except urllib.error.HTTPError as error:
            status, got, raw = error.code, error.headers, error.read(LARGEST_BYTES)
        try:
            parsed: Any = json.loads(raw) if with_key and raw else None
        except ValueError:
            parsed = raw.decode("utf-8", "replace")
        return Reply(status, {name.lower(): value for name, value in got.items()}, parsed, raw)

    def ask(self, method: str, path: str, body: Any = None, *, may_refuse: bool = False) -> Reply:
        """Sends a request to `path` below the host.

        429 is retried after `Retry-After`; too many export runs at a time is an answer. 401 ends
        everything, and 403 too unless `may_refuse`.
        """
        repeatable = method == "GET" or path.endswith("/query/")
        for attempt in range(1, ATTEMPTS + 1):
            if self.stop.is_set() and not self.closing:
                raise Interrupted
            try:
                reply = self._send(method, self.base_url + path, body, True)
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                if repeatable and attempt < 3:
                    self.wait(2 * attempt)
                    continue
                started = "" if repeatable else " If an export run was started, PostHog has it under data pipelines."
                raise CannotRun(f"No response from {self.base_url}: {reason}.{started}") from None
            self.recorder.add(method, path, body, reply)
            if reply.status == 401:
                raise CannotRun("PostHog does not know the API key (401). Is it a personal API key (phx_…, not phc_… or phs_…) of this region?")
            if reply.status == 403 and not may_refuse:
                detail = self.recorder.scrub.sentence(str(reply.get("detail")))
                raise CannotRun(f"PostHog refuses the API key (403): {detail}")
            if reply.status == 429 and reply.get("code") != "too_many_concurrent_file_downloads" and attempt < ATTEMPTS:
                asked = reply.headers.get("retry-after", "")
                seconds = int(asked) if asked.isdigit() else 5 * attempt
                if seconds > LONGEST_WAIT_SECONDS:
                    raise CannotRun(f"PostHog asks to wait for {seconds} s (429). Try again later.")
                self.wait(seconds + 1)
                continue
            if reply.status in (500, 502, 503, 504, 524) and repeatable and attempt < 3:
                self.wait(2 * attempt)
                continue
            return reply
        return reply

    def at(self, rest: str) -> str:
        """A path below the project."""
        return f"/api/projects/{self.project}/{rest}"

    def query(self, sql: str, **modifiers: str) -> Reply:
        """Runs HogQL; refusals are answers."""
        query = {"kind": "HogQLQuery", "query": sql, "modifiers": {"convertToProjectTimezone": False, **modifiers}}
        return self.ask("POST", self.at("query/"), {"query": query, "refresh": "force_blocking"})

    def file(self, reply: Reply) -> Reply:
        """What a redirect to a file leads to, fetched without the key."""
        location = urljoin(self.base_url, reply.headers.get("location", ""))
        for attempt in (1, 2, 3):
            try:
                got = self._send("GET", location, None, False)
                break
            except (OSError, http.client.HTTPException) as error:
                if attempt == 3:
                    raise Unanswered(f"the host of the files does not respond ({type(error).__name__})") from None
                self.wait(attempt)
        if got.status != 200:
            raise Unanswered(f"the host of the files responds with {got.status}")
        self.recorder.add_file(location, got)
        return got
