"""The open questions. Each is asked of PostHog and of the sandbox by the same code.

A question returns facts by their names. A fact is text, or a list if its elements may differ one by one;
it must not depend on the data of the account, only on how PostHog behaves.
"""

from __future__ import annotations

import datetime
import functools
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, Union

from client import Client, Reply, Unanswered
from exports import Content, Exports, Run

Fact = Union[str, list[str], Unanswered]
Facts = dict[str, Fact]
Answer = TypeVar("Answer")
MODELS = ("events", "persons", "sessions")
AS_INGESTED = "person_id_no_override_properties_on_events"
OVERRIDDEN = "person_id_override_properties_on_events"
# Nothing was ever exported for this hour.
EMPTY_HOUR = ("2015-01-01T00:00:00Z", "2015-01-01T01:00:00Z")
NO_SUCH_EVENT = "try-posthog: no such event"
CHECKSUM = "reinterpretAsUInt32(reverse(unhex(right(toString(uuid), 8))))"
# Enough for the kinds of events that there are.
ENOUGH_ROWS = 50
# Rows that an hour may have; otherwise a minute of it is exported.
MOST_ROWS = 5_000
# PostHog returns no more, and does not say so.
MOST_RESULTS = 50_000
# As the connector reads them, with one object a page.
LISTS = (
    "annotations/?", "cohorts/?", "feature_flags/?", "feature_flags/?archived=true&", "insights/?order=id&", "actions/?",
    "dashboards/?", "experiments/?order=updated_at&", "experiments/?order=id&", "surveys/?",
    "session_recordings/?order=start_time&order_direction=ASC&", "groups_types/?", "event_definitions/?ordering=name&",
    "property_definitions/?type=event&", "early_access_feature/?", "notebooks/?",
)  # fmt: skip


@dataclass(eq=False)
class Asker:
    """What the questions share: a client, the interval to read, and runs that are started once."""

    client: Client
    exports: Exports
    limits: bool
    rows: int = 0
    begin: str = ""
    end: str = ""
    # Why there are no runs, so that they are not started twice.
    failed: Unanswered | None = None

    def choose_interval(self, wanted: datetime.datetime | None = None) -> None:
        """Takes the hour that begins at `wanted`, or one of the last day with few events, but some: one query."""
        length = datetime.timedelta(hours=1)
        whole = datetime.datetime.now(datetime.timezone.utc).replace(minute=0, second=0, microsecond=0)
        # The newest hour is left out: PostHog may still be storing its events.
        first, last = (wanted, wanted + length) if wanted else (whole - 25 * length, whole - length)
        since, until = (f"toDateTime('{at:%Y-%m-%d %H:%M:%S}', 'UTC')" for at in (first, last))
        sql = (
            f"SELECT toStartOfHour(created_at) AS hour, count() AS row_count FROM events WHERE created_at >= {since} AND "
            f"created_at < {until} AND timestamp >= {since} - INTERVAL 2 DAY GROUP BY hour ORDER BY hour LIMIT 100"
        )
        reply = self.client.query(sql)
        rows = reply.get("results")
        if reply.status != 200 or not isinstance(rows, list):
            raise Unanswered(f"events cannot be counted ({reply.status})")
        if wanted:
            self.rows, begin = sum(int(count) for _, count in rows), wanted
        else:
            hours = [(int(count), parse(hour)) for hour, count in rows]
            many = [hour for hour in hours if hour[0] >= ENOUGH_ROWS]
            self.rows, begin = min(many) if many else max(hours, default=(0, last - length))
        if self.rows > MOST_ROWS:
            self.rows, length = self.rows // 60, datetime.timedelta(minutes=1)
        self.begin, self.end = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (begin, begin + length))

    @property
    def between(self) -> str:
        """The interval as a condition."""
        begin, end = (f"toDateTime64('{at.replace('T', ' ').replace('Z', '')}', 6, 'UTC')" for at in (self.begin, self.end))
        return f"created_at >= {begin} AND created_at < {end}"

    @functools.cached_property
    def runs(self) -> dict[str, Run]:
        """The runs of the three models and of an empty hour, as far as they have come in time."""
        if self.failed:
            raise self.failed
        try:
            runs = {model: self.exports.run(self.exports.start(model, self.begin, self.end)) for model in MODELS}
            runs["empty"] = self.exports.run(self.exports.start("events", *EMPTY_HOUR, megabytes=64))
            self.exports.finish(list(runs.values()))
        except Unanswered as reason:
            self.failed = reason
            raise
        return runs

    @functools.cached_property
    def first_files(self) -> list[int]:
        """How many files the run of events has, asked again and again once it has completed."""
        run = self.runs["events"]
        if run.status != "Completed":
            raise Unanswered("the run of events did not complete in time")
        for _ in range(5):
            self.exports.poll(run)
            self.client.wait(1)
        return run.files

    @functools.cache  # noqa: B019
    def content(self, model: str) -> Content:
        """The lines of a model."""
        if model == "events":
            _ = self.first_files
        return self.exports.content(self.runs[model])

    @functools.cache  # noqa: B019
    def persons_of_events(self, mode: str) -> dict[str, str]:
        """`person_id` by uuid of the events of the interval, in a mode of `personsOnEventsMode`."""
        columns = "toString(uuid) AS uuid_text, toString(person_id) AS person"
        sql = f"SELECT {columns} FROM events WHERE {self.between} LIMIT {MOST_RESULTS}"
        reply = self.client.query(sql, personsOnEventsMode=mode)
        if reply.status != 200:
            raise Unanswered(f"the query is refused ({reply.status} {reply.get('code')})")
        if len(reply.get("results")) >= MOST_RESULTS:
            raise Unanswered("the interval has more events than a query returns")
        return {str(uuid): str(person) for uuid, person in reply.get("results")}


def parse(text: str) -> datetime.datetime:
    """An instant; in UTC if it has no offset."""
    instant = datetime.datetime.fromisoformat(text.replace("Z", "+00:00").replace(" ", "T"))
    return (instant if instant.tzinfo else instant.replace(tzinfo=datetime.timezone.utc)).astimezone(datetime.timezone.utc)


# What reading a response of another shape than expected raises.
ODD = (TypeError, KeyError, IndexError, ValueError, AttributeError, zlib.error)


def attempt(fact: Callable[[], Answer]) -> Answer | Unanswered:
    """A fact, or why there is none."""
    try:
        return fact()
    except Unanswered as reason:
        return reason
    except ODD as error:
        return Unanswered(f"a response has a shape that this program does not know ({type(error).__name__})")


def refusals(asker: Asker) -> Facts:
    """1: how refused queries are worded."""
    facts: Facts = {}
    for what, sql in (
        ("person_id of sessions", "SELECT person_id FROM sessions LIMIT 1"),
        ("unknown field", "SELECT nosuch FROM sessions LIMIT 1"),
        ("unknown table", "SELECT 1 FROM nosuch LIMIT 1"),
        ("syntax error", "SELECT FROM events WHERE LIMIT 1"),
    ):
        reply = asker.client.query(sql)
        lines = str(reply.get("detail")).split("\n") if reply.status >= 400 else ["(no refusal)"]
        facts[f"{what}: status and code"] = f"{reply.status} {reply.get('code') or ''}".strip()
        facts[f"{what}: first line of detail"] = lines[0]
        facts[f"{what}: other lines"] = lines[1:]
        facts[f"{what}: extra"] = sorted(reply.get("extra") or {})
    return facts


def shape(value: Any) -> str | None:
    """What kind of time a value is, if it is one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return {10: "seconds", 13: "milliseconds", 16: "microseconds"}.get(len(str(value)))
    if isinstance(value, str) and (found := re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(.*)", value)):
        return {"": "text without offset", "Z": "text with Z", "+00:00": "text with +00:00"}.get(found[1], "text with an offset")
    return None


def files(asker: Asker) -> Facts:
    """2: fields, times and gzip members of each model."""
    facts: Facts = {}
    for model in MODELS:

        def lines(model: str = model) -> list[dict[str, Any]]:
            if not asker.content(model).lines:
                raise Unanswered(f"no {model} in the interval")
            return asker.content(model).lines

        def fields(lines: Callable[[], list[dict[str, Any]]]) -> Fact:
            return sorted({name for line in lines() for name in line})

        def times(lines: Callable[[], list[dict[str, Any]]] = lines) -> Fact:
            names = ("timestamp", "created_at", "_inserted_at", "start_timestamp", "end_timestamp")
            found = {f"{name}: {shape(line.get(name))}" for line in lines() for name in names if line.get(name) is not None}
            return sorted(found)

        def members(model: str = model, lines: Callable[[], list[dict[str, Any]]] = lines) -> Fact:
            count, members = len(lines()), asker.content(model).members
            if count == 1:
                raise Unanswered("there is only one line")
            return {0: "not compressed", 1: "one", count: "one for each line"}.get(members, "one for some lines each")

        facts[f"{model}: fields"] = attempt(functools.partial(fields, lines))
        facts[f"{model}: times"] = attempt(times)
        facts[f"{model}: gzip members"] = attempt(members)
    return facts


def said(reply: Reply) -> str:
    """A short response in words, without ids."""
    fields = [f"{name}={value}" for name, value in sorted(reply.body.items())] if isinstance(reply.body, dict) else []
    return " ".join([str(reply.status), *fields])


def many_runs(asker: Asker) -> Facts:
    """3: limit of runs at a time, and how cancelling goes. These runs export nothing."""
    first = parse(asker.begin)
    runs: list[Run] = []
    facts: Facts = {}
    refused: Reply | None = None
    most = 21 if asker.limits else 2
    for number in range(most):
        begin, end = (f"{first + datetime.timedelta(minutes=number + more):%Y-%m-%dT%H:%M:%SZ}" for more in (0, 1))
        reply = asker.exports.start("events", begin, end, include=[NO_SUCH_EVENT])
        if reply.get("id"):
            runs.append(asker.exports.run(reply))
        else:
            refused = reply
            break
    if not asker.limits:
        facts["two runs at a time"] = "accepted" if refused is None else said(refused)
    skipped = Unanswered("21 runs may disturb others; LIMITS=1 asks it")
    facts["runs at a time"] = skipped if not asker.limits else str(len(runs)) if refused else "21 or more"
    if refused:
        facts["one run too many"] = f"{said(refused)}, Retry-After {refused.headers.get('retry-after', 'absent')}"
    elif not asker.limits:
        facts["one run too many"] = skipped
    if not runs:
        raise Unanswered("no run was started")
    cancelled = asker.exports.cancel(runs[-1])
    facts["cancel of a running run"] = said(cancelled)
    facts["status after cancel"] = asker.exports.poll(runs[-1]).status
    if not runs[-1].ended and cancelled.status < 400:
        asker.client.wait(5)
        facts["status after cancel"] = f"{runs[-1].status}, then {asker.exports.poll(runs[-1]).status}"
    facts["cancel once more"] = said(asker.exports.cancel(runs[-1]))
    for run in runs[:-1]:
        asker.exports.cancel(run)
        asker.exports.poll(run)
    return facts


def completion(asker: Asker) -> Facts:
    """4: what is shown around the completion of a run."""

    def first() -> Fact:
        files = asker.first_files
        return "all from the start" if files[0] == max(files) else "fewer at first"

    def completed(model: str) -> Fact:
        lines, last = len(asker.content(model).lines), asker.runs[model].last
        if last is None or not isinstance(last.body, dict) or "records_completed" not in last.body:
            return "missing"
        records = last.get("records_completed")
        return "null" if records is None else "number of lines" if records == lines else f"{records} with {lines} lines"

    facts: Facts = {"files of a completed run": attempt(first)}
    for model in MODELS:
        facts[f"records_completed of {model}"] = attempt(functools.partial(completed, model))
    # Whether a short status is seen depends on the second in which it is asked for.
    words = {word for model in MODELS for word in asker.runs[model].statuses} - {"Starting", "Running"}
    facts["last status of a run"] = sorted(words) or ["still Running"]
    last = asker.runs["events"].last
    facts["fields of a completed run"] = sorted(last.body) if last and last.status == 200 else Unanswered("no run completed")
    return facts


def empty_hour(asker: Asker) -> Facts:
    """5: a run without rows. Seven days of a large project are not asked for: they cost too much."""
    run = asker.runs["empty"]
    last = run.last
    ended = run.status == "Completed" and last is not None
    return {
        "a run over seven days": Unanswered("it is expensive; time a first sync of a large project instead"),
        "status of an empty hour": run.status,
        "files of an empty hour": str(last.get("files")) if ended and last else Unanswered(f"still {run.status}"),
        "records_completed of an empty hour": str(last.body.get("records_completed", "missing"))
        if ended and last
        else Unanswered(f"still {run.status}"),
    }


def probe(asker: Asker) -> Facts:
    """6: the request that finds out whether there are exports, and whether a run completes."""
    reply = asker.client.ask("POST", asker.client.at("file_download_batch_exports/"), {"model": "events"})
    cloud = asker.client.base_url.endswith(".posthog.com")
    completes = "yes" if asker.runs["events"].status == "Completed" else f"no, {asker.runs['events'].status}"
    return {
        "incomplete request to start a run": f"{reply.status} {reply.get('code') or ''} {reply.get('attr') or ''}".strip(),
        "a run completes on a self-hosted instance": Unanswered("this is PostHog Cloud") if cloud else completes,
    }


def both_methods(asker: Asker) -> Facts:
    """7: the events of the interval by both methods."""

    def same() -> Fact:
        exported = {line["uuid"] for line in asker.content("events").lines}
        queried = set(asker.persons_of_events(AS_INGESTED))
        if not exported and not queried:
            raise Unanswered("no events in the interval")
        one, other = len(exported - queried), len(queried - exported)
        return "the same" if not one and not other else f"{one} only by export, {other} only by query"

    return {
        "events by export and by query": attempt(same),
        "everything, twice, by each method": Unanswered("run `source-posthog check` and `read` by hand"),
        "events per day in PostHog's interface": Unanswered("only a person can compare them"),
    }


def keys(asker: Asker) -> Facts:
    """8: what an API key can find out about itself."""
    facts: Facts = {}

    def fields(path: str) -> Fact:
        reply = asker.client.ask("GET", path, may_refuse=True)
        if reply.status in (403, 404):
            raise Unanswered(f"{reply.status}: {asker.client.recorder.scrub.sentence(str(reply.get('detail')))}")
        page = reply.get("results")
        body = page[0] if isinstance(page, list) and page else reply.body
        return [str(reply.status), *(sorted(body) if isinstance(body, dict) else [])]

    for path in ("/api/personal_api_keys/@current/", "/api/projects/@current/", "/api/projects/", asker.client.at("")):
        facts[asker.client.recorder.scrub.path(path)] = attempt(functools.partial(fields, path))
    facts["keys of one project, one organization, without project:read"] = Unanswered("there is only one key")
    return facts


def headers(asker: Asker) -> Facts:
    """9: headers and fields of a query's response."""
    reply = asker.client.query(f"SELECT count() AS row_count FROM events WHERE {asker.between}")
    if reply.status != 200:
        raise Unanswered(f"the query is refused ({reply.status})")
    return {
        "headers of a query": sorted(name for name in reply.headers if name.startswith("x-posthog-")),
        "fields of a query's response": sorted(reply.body),
        "responses when the budget is spent": Unanswered("it would have to be spent"),
    }


def lists(asker: Asker) -> Facts:
    """10: the lists, with the parameters that the connector sends."""
    facts: Facts = {}

    def page(path: str) -> tuple[Fact, Fact]:
        reply = asker.client.ask("GET", asker.client.at(f"{path}limit=1"), may_refuse=True)
        if reply.status == 403:
            raise Unanswered("the API key lacks its scope")
        following = reply.get("next")
        if not following:
            link: Fact = Unanswered("there are not two objects")
        else:
            link = ("absolute: " if "://" in following else "relative: ") + ", ".join(sorted(re.findall(r"[?&](\w+)=", following)))
        body = reply.body
        fields = ["(array)"] if isinstance(body, list) else sorted(body) if isinstance(body, dict) else ["(no JSON)"]
        return [str(reply.status), *fields], link

    for path in LISTS:
        name = path.rstrip("?&")
        try:
            facts[f"{name}: fields of a page"], facts[f"{name}: next"] = page(path)
        except Unanswered as reason:
            facts[f"{name}: fields of a page"] = facts[f"{name}: next"] = reason
    fast = [asker.client.ask("GET", asker.client.at("session_recordings/?limit=1"), may_refuse=True) for _ in range(30 * asker.limits)]
    worst = max((reply.status for reply in fast), default=0)
    facts["30 pages of recordings in a row"] = str(worst) if fast else Unanswered("LIMITS=1 asks it")
    return facts


def fingerprint(asker: Asker) -> Facts:
    """11: count and checksum of the interval, as the connector asks for them."""
    uuids = [line["uuid"] for line in asker.content("events").lines] if asker.runs["events"].status == "Completed" else []
    scrub = asker.client.recorder.scrub
    wanted = sum(int(uuid[-8:], 16) for uuid in uuids)
    scrub.checksums[wanted] = sum(int(scrub.uuid(uuid)[-8:], 16) for uuid in uuids)
    reply = asker.client.query(f"SELECT count() AS row_count, sum({CHECKSUM}) AS row_checksum FROM events WHERE {asker.between}")
    if str(reply.get("detail")).startswith("The sandbox does not support"):
        raise Unanswered("it lacks the functions")
    if reply.status != 200:
        return {"status": f"{reply.status} {reply.get('code')}"}
    count, checksum = reply.get("results")[0]
    same: Fact = "yes" if (count, checksum) == (len(uuids), wanted) else "no"
    return {
        "status": "200",
        "types": [f"{name}: {kind}" for name, kind in reply.get("types") or []],
        "JSON types": f"{type(count).__name__}, {type(checksum).__name__}",
        "agrees with the exported events": same if uuids else Unanswered("no exported events"),
        "over all days": Unanswered("it reads the whole project; see the log of a sync"),
    }


def persons(asker: Asker) -> Facts:
    """12: the person of the same event by both methods."""

    def exported() -> dict[str, str]:
        return {line["uuid"]: str(line.get("person_id")) for line in asker.content("events").lines}

    def compare(wanted: Callable[[str], bool], nothing: str) -> Fact:
        queried, file = asker.persons_of_events(AS_INGESTED), exported()
        both = [uuid for uuid in file if uuid in queried and wanted(uuid)]
        if not both:
            raise Unanswered(nothing)
        return "the exported one" if all(file[uuid] == queried[uuid] for uuid in both) else "not always the exported one"

    def merged(uuid: str) -> bool:
        return asker.persons_of_events(AS_INGESTED)[uuid] != asker.persons_of_events(OVERRIDDEN).get(uuid)

    return {
        "person_id as ingested": attempt(lambda: compare(lambda uuid: not merged(uuid), "no events in the interval")),
        "person_id as ingested, of a merged person": attempt(
            lambda: compare(merged, "no event of the interval belongs to a person merged later")
        ),
    }


def columns(asker: Asker) -> Facts:
    """Decided at run time: which columns a table has."""

    def of(table: str) -> Fact:
        reply = asker.client.query(f"SELECT * FROM {table} LIMIT 0")
        if reply.status != 200:
            return [f"{reply.status} {reply.get('code')}"]
        return sorted(reply.get("columns") or [])

    return {f"columns of {table}": of(table) for table in ("events", "persons", "sessions", "groups")}


def newer(asker: Asker) -> Facts:
    """14: streams for which no list of the project is enough."""

    def fields(body: Any) -> list[str]:
        return sorted(body) if isinstance(body, dict) else [type(body).__name__]

    def page(path: str) -> Any:
        reply = asker.client.ask("GET", path, may_refuse=True)
        if reply.status == 403:
            raise Unanswered("the API key lacks its scope")
        return reply.body if reply.status == 200 else {f"{reply.status} {reply.get('code')}": None}

    def first(path: str) -> Any:
        objects = page(path).get("results") or []
        if not objects:
            raise Unanswered("there is none")
        return objects[0]

    def runs() -> Fact:
        export = first(asker.client.at("batch_exports/?limit=1"))["id"]
        bounds = "after=2020-01-01T00:00:00Z&before=2030-01-01T00:00:00Z"
        return fields(page(asker.client.at(f"batch_exports/{export}/runs/?limit=1&ordering=created_at&{bounds}")))

    def results() -> Fact:
        experiment = first(asker.client.at("experiments/?limit=1&order=updated_at"))["id"]
        return fields(page(asker.client.at(f"experiments/{experiment}/metrics_recalculation/latest/")))

    def warnings() -> Fact:
        reply = asker.client.query("SELECT * FROM system.ingestion_warnings LIMIT 0")
        return sorted(reply.get("columns") or []) if reply.status == 200 else [f"{reply.status} {reply.get('code')}"]

    def responses() -> Fact:
        reply = asker.client.query(
            "SELECT countIf(properties.`$survey_id` != '') AS row_count, countIf(properties.`$survey_submission_id` != '') AS k "
            f"FROM events WHERE event = 'survey sent' AND {asker.between}"
        )
        if reply.status != 200:
            return [f"{reply.status} {reply.get('code')}"]
        surveys, submissions = reply.get("results")[0]
        if not surveys:
            raise Unanswered("no responses in the interval")
        return "all" if surveys == submissions else "some" if submissions else "none"

    return {
        "organizations: fields of one": attempt(lambda: fields(first("/api/organizations/?limit=1"))),
        "runs of a batch export: fields of a page": attempt(runs),
        "results of an experiment: fields": attempt(results),
        "columns of system.ingestion_warnings": attempt(warnings),
        "survey responses with a submission id": attempt(responses),
    }


# Number, title and code, in an order in which runs can work while queries are asked.
QUESTIONS: tuple[tuple[str, str, Callable[[Asker], Facts]], ...] = (
    ("1", "refused queries", refusals),
    ("2", "exported files", files),
    ("3", "runs at a time, cancel", many_runs),
    ("4", "completion of a run", completion),
    ("5", "empty and long runs", empty_hour),
    ("6", "self-hosted instances", probe),
    ("7", "both methods", both_methods),
    ("8", "what a key can see", keys),
    ("9", "response to a query", headers),
    ("10", "lists", lists),
    ("11", "fingerprint", fingerprint),
    ("12", "person of an event", persons),
    ("13", "columns", columns),
    ("14", "newer streams", newer),
)


def cost(rows: int, limits: bool) -> str:
    """What asking everything takes."""
    recordings = 30 if limits else 0
    return (
        f"about 15 queries, {10 + len(LISTS) + recordings} list requests, 4 export runs with about {rows:,} events, as many "
        f"persons and fewer sessions (so about {3 * rows:,} rows that PostHog may bill), {21 if limits else 2} export runs "
        "without rows, and a poll a second of each run"
    )


def ask_all(asker: Asker, progress: Callable[[str], None]) -> dict[str, Facts]:
    """All facts by the number of their question."""
    answers: dict[str, Facts] = {}
    for number, title, question in QUESTIONS:
        progress(f"{number}: {title}")
        facts = attempt(functools.partial(question, asker))
        answers[number] = {"": facts} if isinstance(facts, Unanswered) else facts
    return answers
