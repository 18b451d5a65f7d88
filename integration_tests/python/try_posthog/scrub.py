"""Takes everything personal out of what is recorded, and keeps its shape.

Whatever is not known to be PostHog's own becomes a placeholder of the same type and length class. One
value has one placeholder in all files, so that requests that depend on a response still match.
"""

from __future__ import annotations

import re
from typing import Any

UUID = re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b")
INSTANT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?")
EMAIL = re.compile(r"[^\s@<>\"'()]+@[^\s@<>\"'()]+\.[A-Za-z]+")
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'<>]+")
ADDRESS = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b|\b(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{0,4}|\b[0-9a-fA-F:]*::[0-9a-fA-F:]+\b")
TOKEN = re.compile(r"\bph[a-z]_[A-Za-z0-9_-]+")
NAME = re.compile(r"[a-z_$][a-z0-9_$.]*")

# What PostHog's own vocabulary is the value of; these stay if they look like it.
WORDS = {
    "status", "code", "type", "attr", "model", "kind", "timezone", "resolution", "personsOnEventsMode", "refresh",
    "sessionTableVersion", "format", "compression", "columns", "table_names", "types", "scopes", "calculation_trigger",
}  # fmt: skip
# PostHog's sentences; what is personal in them is replaced.
SENTENCES = {"detail", "error", "message", "fix"}
# Our own requests.
OURS = {"query.query", "data_interval_start", "data_interval_end", "include", "exclude"}
# Numbers that count something or are an instant.
COUNTS = {
    "records_completed", "row_count", "count", "limit", "offset", "start", "end", "k", "t", "version", "max_size_mb",
    "person_version", "person_distinct_id_version", "created_at", "updated_at", "_inserted_at", "timestamp",
    "start_timestamp", "end_timestamp", "hour",
}  # fmt: skip
# Anything but properties in which people choose the names of fields.
PROPERTIES = {"properties", "person_properties", "set", "set_once", "group_properties"}
# Fields of properties that SDKs set for everybody.
PROPERTY_NAMES = {
    "$lib", "$lib_version", "$current_url", "$host", "$pathname", "$browser", "$browser_version", "$os", "$device_type",
    "$ip", "$session_id", "$window_id", "$device_id", "$user_id", "$set", "$set_once", "$referrer", "$insert_id",
    "$geoip_city_name", "$geoip_country_code", "email", "name",
}  # fmt: skip


class Scrubber:
    """Replaces values, always the same by the same.

    `key` is the API key, `project` the number of the project as it stands in paths.
    """

    def __init__(self, key: str, project: str, host: str) -> None:
        self.key, self.project, self.host = key, project, host
        self.given: dict[str, dict[Any, int]] = {}
        self.checksums: dict[int, int] = {}

    def _next(self, kind: str, value: Any) -> int:
        known = self.given.setdefault(kind, {})
        return known.setdefault(value, len(known) + 1)

    def uuid(self, value: str) -> str:
        """A uuid in place of another."""
        return f"00000000-0000-4000-8000-{self._next('uuid', value.lower()):012x}"

    def sentence(self, text: str) -> str:
        """A sentence of PostHog without keys, numbers of projects, uuids, addresses and URLs."""
        text = text.replace(self.key, "<API key>")
        text = TOKEN.sub("<token>", text)
        text = URL.sub(lambda match: match[0] if match[0].startswith("https://posthog.com/") else "<URL>", text)
        text = EMAIL.sub("<email>", text)
        text = UUID.sub(lambda match: self.uuid(match[0]), text)
        text = ADDRESS.sub("192.0.2.1", text) if not INSTANT.search(text) else text
        return re.sub(rf"(?<!\d){re.escape(self.project)}(?!\d)", "1", text)

    def path(self, path: str) -> str:
        """A path without the number of the project."""
        path = re.sub(rf"^/api/(projects|environments)/{re.escape(self.project)}(?=[/?]|$)", r"/api/\1/:project", path)
        path = re.sub(r"(?<=/experiments/)\d+(?=/)", lambda match: str(self.scalar(int(match[0]), "id", False)), path)
        return UUID.sub(lambda match: self.uuid(match[0]), path).replace(self.key, "key")

    def location(self, url: str) -> str:
        """A place of the same kind: PostHog's own paths stay, files get a number."""
        rest = url[len(self.host) :] if url.startswith(self.host + "/") else None
        if rest is not None and rest.startswith("/api/"):
            return "https://posthog.example.com" + re.sub(r"cursor=[^&]+", "cursor=c", self.path(rest))
        return f"https://files.example.com/files/{self._next('file', url.split('?')[0])}"

    def name(self, text: str) -> str:
        """The name of a field that somebody may have chosen."""
        return text if text in PROPERTY_NAMES else f"field_{self._next('field', text)}"

    def text(self, text: str) -> str:
        """A placeholder of the same kind and length class (8, 32, 128, 512, 2048)."""
        if not text:
            return text
        if UUID.fullmatch(text):
            return self.uuid(text)
        if instant := INSTANT.fullmatch(text):
            return "2026-01-01" + re.sub(r"\d", "0", instant[1] or "") + (instant[4] or "")
        number = self._next("text", text)
        if text.isdigit():
            return str(number).rjust(len(text), "1")[-len(text) :]
        if EMAIL.fullmatch(text):
            return f"person{number}@example.com"
        if ADDRESS.fullmatch(text):
            return "192.0.2.1" if "." in text else "2001:db8::1"
        length = next((size for size in (8, 32, 128, 512) if len(text) <= size), 2048)
        start = f"https://example.com/{number}/" if URL.match(text) else f"text{number}"
        return start.ljust(length, "x")

    def scalar(self, value: Any, key: str, private: bool) -> Any:
        """One value that is neither object nor list."""
        if value is None:
            return None
        if isinstance(value, bool):
            return value if not private else True
        if isinstance(value, (int, float)):
            if value in self.checksums and key == "row_checksum":
                return self.checksums[int(value)]
            if key in COUNTS and not private:
                return value
            if isinstance(value, float):
                return 0.5
            return 1 if str(value) == self.project else self._next("number", value) + 10 ** (len(str(abs(value))) - 1)
        if private:
            return self.text(value)
        if key in OURS:
            return self.sentence(value)
        if key in SENTENCES:
            return self.sentence(value)
        if key in WORDS and re.fullmatch(r"\*|[A-Za-z_$][\w$ .:/(),'-]{0,80}", value) and not TOKEN.search(value):
            return value
        if key in COUNTS and INSTANT.fullmatch(value):
            return value
        if key in ("next", "previous") and URL.match(value):
            return self.location(value)
        if key == "event" and re.fullmatch(r"\$[a-z_]+", value):
            return value
        return self.text(value)

    def value(self, value: Any, key: str = "", private: bool = False, depth: int = 0) -> Any:
        """A whole body. `depth` counts objects; from the third on, names of fields are nobody's business either."""
        if isinstance(value, list):
            return [self.value(item, key, private, depth) for item in value]
        if not isinstance(value, dict):
            return self.scalar(value, key, private)
        if key == "" and isinstance(value.get("results"), list) and isinstance(value.get("columns"), list):
            rows = [dict(enumerate(row)) for row in value["results"]]
            columns = value["columns"]
            cells = [[self.value(row[i], columns[i], columns[i] in PROPERTIES, 1) for i in row] for row in rows]
            # SQL as PostHog understood it names projects and whatever a team calls its own.
            sql = {name: self.text(str(item)) for name in ("hogql", "clickhouse", "query") if (item := value.get(name))}
            rest = {name: item for name, item in value.items() if name not in ("results", *sql)}
            return {**self.value(rest, "rest"), **sql, "results": cells}
        out = {}
        for name, item in value.items():
            # In an object of a list, these are what somebody has written.
            written = depth >= 1 and name in SENTENCES | {"columns", "types"}
            hidden = private or name in PROPERTIES or depth >= 3 or written
            plain = NAME.fullmatch(name) or name in WORDS or re.fullmatch(r"[a-z]+[A-Za-z]+", name)
            shown = self.name(name) if private or depth >= 3 or not plain else name
            out[shown] = self.value(item, name, hidden, depth + 1)
        return out

    def request(self, body: Any) -> Any:
        """A body of our own: nothing is personal but the ids that came from a response."""
        if isinstance(body, dict):
            return {name: self.request(item) for name, item in body.items()}
        if isinstance(body, list):
            return [self.request(item) for item in body]
        return self.sentence(body) if isinstance(body, str) else body
