"""The SQL of docs/privacy.md makes a warehouse follow what PostHog deletes, on DuckDB."""

import datetime
import json
import re
import subprocess

import duckdb
import pytest
from support import ROOT, SOURCE, posthog

TABLES = {
    "events": {"id": "text", "event": "text", "timestamp": "timestamptz", "created_at": "timestamptz", "distinct_id": "text", "person_id": "text"},
    "persons": {"id": "text", "is_deleted": "boolean", "version": "bigint"},
    "person_distinct_ids": {"distinct_id": "text", "person_id": "text", "is_deleted": "boolean", "version": "bigint"},
    "event_days": {"day": "date", "events": "bigint", "checksum": "text", "deleted": "bigint", "checked_at": "timestamptz", "proof": "text"},
}


def sync(warehouse, config, folder, states, step):
    """Appends what a sync reads, as Airbyte does, and keeps its states."""
    (folder / "config.json").write_text(json.dumps(config))
    catalog = [SOURCE, "catalog", "--config", folder / "config.json", "--streams", ",".join(TABLES)]
    (folder / "catalog.json").write_bytes(subprocess.run(catalog, check=True, capture_output=True).stdout)
    (folder / "state.json").write_text(json.dumps(list(states.values())))
    command = [SOURCE, "read", "--config", folder / "config.json", "--catalog", folder / "catalog.json", "--state", folder / "state.json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for message in map(json.loads, done.stdout.splitlines()):
        if message["type"] == "STATE":
            states[message["state"]["stream"]["stream_descriptor"]["name"]] = message["state"]
        elif message["type"] == "RECORD":
            table, data = message["record"]["stream"], message["record"]["data"]
            values = [data["project_id"], *(data[name] for name in TABLES[table]), step]
            warehouse.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)


@pytest.mark.parametrize("method", ["query", "export"])
def test_sql_of_the_page_follows_deletions(tmp_path, method):
    _, _, page = (ROOT / "docs/privacy.md").read_text().partition("\n## Deletions\n")
    ids, persons, events, days = re.findall(r"^```sql\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    with duckdb.connect() as warehouse, posthog("--events", "300", "--exports") as sandbox:
        for table, columns in TABLES.items():
            fields = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            warehouse.execute(f"CREATE TABLE {table} (project_id bigint, {fields}, _airbyte_extracted_at bigint)")
        for view in (ids, days):
            warehouse.execute(view)

        def rows(sql):
            return warehouse.execute(sql).fetchall()

        past = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=400)).isoformat()
        names = [f"visitor-{number}" for number in range(6)]
        sandbox.capture([{"event": f"visit {number}", "distinct_id": name, "timestamp": past} for name in names for number in range(5)])
        identify = [{"event": "$identify", "distinct_id": f"user-{name}", "properties": {"$anon_distinct_id": name}, "timestamp": past} for name in names]
        sandbox.capture(identify)
        config = sandbox.config(method={"type": method, "settle_minutes": 0}, export_above=0)
        states = {}
        sync(warehouse, config, tmp_path, states, 0)
        assert rows("SELECT * FROM deleted_events") == rows("SELECT * FROM deleted_distinct_ids") == []
        before = {event for (event,) in rows("SELECT id FROM events")}

        # One person with its events, one without them; another one becomes part of a third.
        sandbox.delete_persons(["visitor-0"], with_events=True)
        sandbox.delete_persons(["user-visitor-1"], with_events=False)
        sandbox.capture([{"event": "$create_alias", "distinct_id": "user-visitor-2", "properties": {"alias": "user-visitor-3"}}])
        sync(warehouse, config, tmp_path, states, 1)
        assert rows("SELECT CAST(day AS text), CAST(deleted AS bigint) FROM deleted_events") == [(past[:10], 6)]
        gone = {"visitor-0", "user-visitor-0", "visitor-1", "user-visitor-1"}
        assert {name for (name,) in rows("SELECT distinct_id FROM deleted_distinct_ids")} == gone

        of_deleted = {event for (event,) in rows(f"SELECT id FROM events WHERE distinct_id IN {tuple(gone)}")}
        assert len(of_deleted) == 12
        # An old version of a person that is there again does not delete it.
        [(restored,)] = rows("SELECT id FROM persons GROUP BY id HAVING NOT bool_or(is_deleted) ORDER BY id LIMIT 1")
        warehouse.execute("INSERT INTO persons SELECT project_id, id, true, version - 1, -1 FROM persons WHERE id = ?", [restored])
        warehouse.execute(persons)
        warehouse.execute(events)
        left = {event for (event,) in rows("SELECT id FROM events")}
        assert before - left == of_deleted
        still = {event for (event,) in sandbox.select("toString(uuid)", "events")}
        # Those that PostHog keeps without their person are gone here, and nothing else is.
        assert left <= still and (still & before) - left == still & of_deleted and len(still & of_deleted) == 6
        known = {person for (person,) in rows("SELECT id FROM persons")}
        assert restored in known and known <= {person for (person,) in sandbox.select("toString(id)", "persons")}
