"""PyAirbyte reads events, persons and projects into DuckDB, where they equal what PostHog holds.

The truth is read from PostHog by queries of this file, without the connector, and holds the events
that were sent here. PyAirbyte makes the tables from the schemas of `discover`, merges rows by the
primary keys, and keeps the states, which the second run continues from.
"""

import contextlib
import os
import uuid
from datetime import datetime, timedelta, timezone

os.environ.update(AIRBYTE_OFFLINE_MODE="1", DO_NOT_TRACK="1")

import airbyte  # noqa: E402 - reads the environment when it is imported
import pytest  # noqa: E402
from airbyte.caches import DuckDBCache  # noqa: E402

from support import SOURCE, objects, posthog  # noqa: E402

KEYS = {"events": "id", "persons": "uuid", "projects": "id"}
# PyAirbyte makes TIMESTAMP of a timestamp with time zone for DuckDB, in UTC.
TYPES = {
    "events": {
        "VARCHAR": "id uuid event distinct_id elements_chain person_id session_id window_id person_mode "
        "group_0 group_1 group_2 group_3 group_4",
        "BIGINT": "project_id",
        "TIMESTAMP": "timestamp created_at",
        "JSON": "properties person_properties",
    },
    "persons": {
        "VARCHAR": "id uuid",
        "BIGINT": "project_id",
        "TIMESTAMP": "created_at last_seen_at",
        "BOOLEAN": "is_identified",
        "JSON": "properties",
    },
    "projects": {
        "VARCHAR": "api_token name organization product_description timezone uuid",
        "BIGINT": "effective_membership_level event_retention_months id primary_dashboard week_start_day",
        "TIMESTAMP": "created_at updated_at",
        "BOOLEAN": "access_control anonymize_ips completed_snippet_onboarding events_retention_enforced has_group_types "
        "ingested_event is_demo person_on_events_querying_enabled session_recording_opt_in",
        "JSON": "app_urls default_modifiers group_types has_completed_onboarding_for test_account_filters",
    },
}
EVENT_COLUMNS = {
    "uuid": "uuid",
    "event": "event",
    "properties": "properties",
    "timestamp": "timestamp",
    "created_at": "created_at",
    "distinct_id": "distinct_id",
    "elements_chain": "elements_chain",
    "person_id": "person_id",
    "session_id": "`$session_id`",
    "window_id": "`$window_id`",
    "group_0": "`$group_0`",
    "person_mode": "person_mode",
}
PERSON_COLUMNS = {
    "id": "id",
    "properties": "properties",
    "is_identified": "is_identified",
    "created_at": "created_at",
    "last_seen_at": "coalesce(last_seen_at, created_at)",
}
OPTIONAL = {"session_id", "window_id", "group_0", "person_mode"}  # the connector has null for an empty one


@pytest.fixture
def sandbox():
    with posthog("--events", "0", "--dataset") as running:
        yield running


@pytest.fixture
def cache(tmp_path):
    return DuckDBCache(db_path=tmp_path / "posthog.duckdb", schema_name="raw")


def source(sandbox, *streams):
    return airbyte.get_source(
        "source-posthog", config=sandbox.config(), streams=list(streams), local_executable=SOURCE, install_if_missing=False
    )


def event(name, person, at, **properties):
    """An event as SDKs send it."""
    return {
        "uuid": str(uuid.uuid4()),
        "event": name,
        "distinct_id": person,
        "timestamp": at.isoformat(),
        "properties": properties,
    }


def first_events():
    now = datetime.now(timezone.utc)
    yield event("order completed", "anna", now - timedelta(hours=3), total=12.5, items=[{"sku": "ä", "gift": None}], paid=True)
    yield event("number seen", "bert", now - timedelta(days=2), integer=2**53 + 1, negative=-(2**63), fraction=0.1 + 0.2)
    yield event("$set", "anna", now - timedelta(hours=2), **{"$set": {"email": "anna@example.com", "age": 41}})


def later_events():
    now = datetime.now(timezone.utc)
    yield event("order completed", "anna", now, total=0, items=[], paid=False)
    yield event("order completed", "carla", now - timedelta(minutes=5), total=-1)
    # Sent by a device that was offline for longer than the 30 days that every sync looks back.
    yield event("came late", "dora", now - timedelta(days=47), text='{"like": "json"}')


def rows(cache, stream):
    """The rows of a table by primary key; documents parsed, moments as datetimes in UTC."""
    with contextlib.closing(cache.get_sql_engine().raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute(f"DESCRIBE raw.{stream}")
        types = {name: kind for name, kind, *_ in cursor.fetchall()}
        cursor.execute(f"SELECT * FROM raw.{stream}")
        found = [dict(zip(types, row)) for row in cursor.fetchall()]
    for row in found:
        for name, value in row.items():
            if types[name] == "JSON" and value is not None:
                row[name] = objects(value)
            elif types[name] == "TIMESTAMP" and value is not None:
                row[name] = value.replace(tzinfo=timezone.utc)
    by_key = {row[KEYS[stream]]: row for row in found}
    assert len(by_key) == len(found), f"{stream}: {len(found)} rows, {len(by_key)} keys"
    return by_key, types


def truth(sandbox, table, columns):
    """What PostHog holds since the start date, by uuid; of copies of one event the newest."""
    found = {}
    for values in sandbox.select(", ".join(columns.values()), table):
        row = dict(zip(columns, values))
        for name in ("timestamp", "created_at", "last_seen_at"):
            if row.get(name):
                row[name] = datetime.fromisoformat(row[name].replace("Z", "+00:00")).astimezone(timezone.utc)
        row["properties"] = objects(row["properties"])
        row.update({name: row[name] or None for name in OPTIONAL & row.keys()})
        if "is_identified" in row:
            row["is_identified"] = bool(row["is_identified"])
        key = row.get("uuid") or row["id"]
        if key not in found or row["created_at"] > found[key]["created_at"]:
            found[key] = row
    return found


def compare(stream, found, wanted, moment, began):
    """Every row and every value. A row from after `began`, when the read did, may be missing."""
    missing = [key for key, row in wanted.items() if key not in found and row[moment] < began]
    assert not missing and found.keys() <= wanted.keys(), (stream, len(found), len(wanted), missing[:5])
    for key, row in found.items():
        kept = {name: row[name] for name in wanted[key]}
        assert kept == wanted[key], (stream, {name: value for name, value in wanted[key].items() if kept[name] != value})


def table(cache, stream):
    """The rows of a table, after a look at its columns; a stream may have more than are listed here."""
    found, types = rows(cache, stream)
    wanted = {name: kind for kind, names in TYPES[stream].items() for name in names.split()}
    assert {name: types.get(name) for name in wanted} == wanted, stream
    return found


def verify(sandbox, cache, began):
    """Compares events and persons with PostHog; gives both."""
    events, persons = table(cache, "events"), table(cache, "persons")
    compare("events", events, truth(sandbox, "events", EVENT_COLUMNS), "created_at", began)
    compare("persons", persons, truth(sandbox, "persons", PERSON_COLUMNS), "last_seen_at", began)
    for row in [*events.values(), *persons.values()]:
        assert row["id"] == row["uuid"] and row["project_id"] == sandbox.project, row
    return events, persons


def verify_project(sandbox, cache):
    """Compares the one project; gives the time when it was read."""
    (project,) = table(cache, "projects").values()
    answer = sandbox.about_project()
    known = {name: value for name, value in project.items() if name in answer and not name.endswith("_at")}
    # Credentials are left out unless they are asked for.
    expected = {name: answer[name] for name in known} | {"api_token": None}
    assert known == expected and len(known) > 15, (known, answer)
    assert project["created_at"] == datetime.fromisoformat(answer["created_at"].replace("Z", "+00:00"))
    return project["_airbyte_extracted_at"]


def assert_sent(events, sent):
    """What was sent here is there, value by value."""
    for wanted in sent:
        row = events[wanted["uuid"]]
        assert (row["event"], row["distinct_id"]) == (wanted["event"], wanted["distinct_id"])
        kept = {key: row["properties"][key] for key in wanted["properties"]}
        assert kept == wanted["properties"], wanted
        assert abs(row["timestamp"] - datetime.fromisoformat(wanted["timestamp"])) < timedelta(milliseconds=1), wanted


def test_full_refresh(sandbox, cache):
    sent = list(first_events())
    sandbox.capture(sent)
    began, before = datetime.now(timezone.utc), None
    for _ in range(2):
        result = source(sandbox, "events", "persons", "projects").read(cache, force_full_refresh=True)
        events, persons = verify(sandbox, cache, began)
        assert_sent(events, sent)
        assert result.processed_records == len(events) + len(persons) + 1
        now = verify_project(sandbox, cache)
        assert before is None or now > before
        before = now


def test_incremental(sandbox, cache):
    sent = list(first_events())
    sandbox.capture(sent)
    began = datetime.now(timezone.utc)
    source(sandbox, "events", "persons").read(cache)
    events, persons = verify(sandbox, cache, began)
    assert_sent(events, sent)

    new = list(later_events())
    sandbox.capture(new)
    began = datetime.now(timezone.utc)
    second = source(sandbox, "events", "persons").read(cache)
    now_events, now_persons = verify(sandbox, cache, began)
    assert_sent(now_events, sent + new)
    assert {event["uuid"] for event in new} <= now_events.keys() - events.keys()
    assert {now_events[event["uuid"]]["person_id"] for event in new[1:]} <= now_persons.keys() - persons.keys()
    # It continued: only what is new was read, and of persons the last hours.
    assert len(new) <= second.processed_records < len(events) / 2, second.processed_records


def test_a_stream_without_cursor_in_an_incremental_sync(sandbox, cache):
    """PyAirbyte asks for every stream incrementally unless told otherwise, and gives its last state."""
    before = None
    for _ in range(2):
        source(sandbox, "projects").read(cache)
        now = verify_project(sandbox, cache)
        assert before is None or now > before
        before = now
