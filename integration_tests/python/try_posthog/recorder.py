"""Writes fixtures: scrubbed exchanges that `posthog-sandbox --replay` serves again."""

from __future__ import annotations

import json
import pathlib
import re
import zlib
from typing import Any

from scrub import Scrubber

HEADERS = ("content-type", "retry-after", "cache-control", "allow", "location", "www-authenticate")
MOST_LINES = 5000
RUN = re.compile(r".*/file_download_batch_exports/[0-9a-f-]{36}/")


def unpack(raw: bytes) -> tuple[list[dict[str, Any]], int]:
    """The lines of an exported file and its number of gzip members, 0 if it is not compressed."""
    text, members = raw, 0
    if raw[:2] == b"\x1f\x8b":
        parts = []
        while raw:
            member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(raw) + member.flush())
            raw, members = member.unused_data, members + 1
        text = b"".join(parts)
    return [json.loads(line) for line in text.split(b"\n") if line.strip()], members


class Recorder:
    """Numbers exchanges and writes each into a file of `folder`; without one it only scrubs."""

    def __init__(self, folder: pathlib.Path | None, scrub: Scrubber) -> None:
        self.folder, self.scrub = folder, scrub
        self.written = 0
        self._last: dict[str, str] = {}
        self._cancelled: dict[str, int] = {}

    def add(self, method: str, path: str, body: Any, reply: Any) -> None:
        """Records an exchange. What a poll says again is left out."""
        scrub, shown = self.scrub, {}
        for name, value in reply.headers.items():
            if name in HEADERS or name.startswith("x-posthog-"):
                shown[name] = scrub.location(value) if name == "location" else scrub.sentence(value)
        content = reply.body
        if isinstance(content, str):
            content = scrub.text(content)
        response = {"status": reply.status, "headers": sorted(shown.items()), "body": scrub.value(content)}
        request = {"method": method, "path": scrub.path(path), "body": scrub.request(body)}
        run = RUN.match(path)
        after = self._cancelled.get(run[0]) if run else None
        self._write(request, response, after)
        if run and path.endswith("/cancel/") and method == "POST":
            self._cancelled[run[0]] = self.written

    def add_file(self, location: str, reply: Any) -> None:
        """Records an exported file, as far as its lines are few."""
        lines, members = unpack(reply.raw)
        path = self.scrub.location(location).removeprefix("https://files.example.com")
        if len(lines) <= MOST_LINES:
            lines = [self.scrub.value(line) for line in lines]
            response = {"status": 200, "headers": [], "lines": lines, "members": members}
            self._write({"method": "GET", "path": path, "body": None}, response, None)

    def _write(self, request: dict[str, Any], response: dict[str, Any], after: int | None) -> None:
        if self.folder is None:
            return
        same = json.dumps(request, sort_keys=True)
        now = json.dumps(response, sort_keys=True)
        if request["method"] == "GET" and self._last.get(same) == now:
            return
        self._last[same] = now
        fixture = {"number": self.written + 1, "after": after, "request": request, "response": response}
        text = json.dumps(fixture, indent=1, ensure_ascii=False)
        # Nothing of it is left in values; a server may echo it anywhere else, as in the name of a field.
        text = text.replace(self.scrub.key, "API-key").replace(json.dumps(self.scrub.key)[1:-1], "API-key")
        self.written += 1
        (self.folder / f"fixture-{self.written:04}.json").write_text(text + "\n", encoding="utf-8")
