"""The SQL of docs/identities.md leads from events to today's persons, on DuckDB and Postgres."""

import json
import re
import subprocess

import duckdb
import psycopg
import pytest
import support
from support import ROOT, SOURCE, posthog

BLOCK = re.compile(r"^```sql\n(.*?)^```", re.DOTALL | re.MULTILINE)
TABLES = {
    "events": {"id": "text", "event": "text", "timestamp": "timestamp", "distinct_id": "text", "person_id": "text"},
    "persons": {"id": "text", "created_at": "timestamp", "properties": "text", "is_deleted": "boolean"},
    "person_distinct_ids": {"distinct_id": "text", "person_id": "text", "is_deleted": "boolean", "version": "bigint"},
}


def sync(config, tmp_path, state):
    """Records by stream, in their order, and the state."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    catalog = [SOURCE, "catalog", "--config", tmp_path / "config.json", "--streams", ",".join(TABLES)]
    (tmp_path / "catalog.json").write_bytes(subprocess.run(catalog, check=True, capture_output=True).stdout)
    command = [SOURCE, "read", "--config", tmp_path / "config.json", "--catalog", tmp_path / "catalog.json"]
    if state:
        (tmp_path / "state.json").write_text(json.dumps(list(state.values())))
        command += ["--state", tmp_path / "state.json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    records, state = {name: [] for name in TABLES}, dict(state)
    for message in map(json.loads, done.stdout.splitlines()):
        if message["type"] == "RECORD":
            records[message["record"]["stream"]].append(message["record"]["data"])
        elif message["type"] == "STATE":
            state[message["state"]["stream"]["stream_descriptor"]["name"]] = message["state"]
    return records, state


@pytest.fixture
def postgres(tmp_path_factory):
    """A cursor of an empty Postgres."""
    with support.postgres(tmp_path_factory.mktemp("postgres")) as port:
        address = {"host": "127.0.0.1", "port": port, "user": "posthog", "dbname": "postgres"}
        with psycopg.connect(**address, autocommit=True) as connection:
            yield connection.cursor()


@pytest.fixture
def duck():
    with duckdb.connect() as connection:
        yield connection


@pytest.mark.parametrize("database", ["duck", "postgres"])
@pytest.mark.parametrize("method", ["query", "export"])
def test_sql_of_the_page_finds_todays_persons(request, tmp_path, database, method):
    blocks = BLOCK.findall((ROOT / "docs/identities.md").read_text())
    assert len(blocks) == 3
    cursor = request.getfixturevalue(database)
    mark = "?" if database == "duck" else "%s"
    for table, columns in TABLES.items():
        fields = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        cursor.execute(f"CREATE TABLE {table} (project_id bigint, {fields}, _airbyte_extracted_at bigint)")
    for block in blocks:
        for statement in block.split(";\n"):
            if statement.strip():
                cursor.execute(statement)

    def identify(user, device):
        return {"event": "$identify", "distinct_id": user, "properties": {"$anon_distinct_id": device}}

    def rows(sql):
        cursor.execute(sql)
        return cursor.fetchall()

    with posthog("--events", "200", "--exports") as sandbox:
        method = {"type": method, "settle_minutes": 0}
        config = sandbox.config(method=method, export_above=0)
        state, seen = {}, []
        for step in range(3):
            # Before the first sync, between the two, and after it.
            visits = [{"event": "seen", "distinct_id": f"device-{step}-{number}"} for number in range(4)]
            sandbox.capture(visits)
            sandbox.capture([identify(f"user-{step}", f"device-{step}-{number}") for number in range(2)])
            sandbox.capture([identify("user-0", f"device-{step - 1}-2")] if step else [])
            records, state = sync(config, tmp_path, state)
            for table, columns in TABLES.items():
                for record in records[table]:
                    values = [record["project_id"], *(record[name] for name in columns), step]
                    values = [json.dumps(value) if isinstance(value, dict) else value for value in values]
                    cursor.execute(f"INSERT INTO {table} VALUES ({', '.join([mark] * len(values))})", values)
            owners = {distinct_id: person for distinct_id, person in sandbox.select("distinct_id, person_id", "person_distinct_ids")}
            known = dict(rows("SELECT distinct_id, person_id FROM current_distinct_ids"))
            assert known.items() <= owners.items()
            # The stand-in has persons of its own that are seen in a while.
            sent = {distinct_id for distinct_id in owners if distinct_id.startswith(("device-", "user-"))}
            assert sent and sent <= known.keys()
            found = rows("SELECT id, distinct_id, person_id, current_person_properties FROM events_with_persons")
            assert len(found) == rows("SELECT count(*) FROM events")[0][0] > 0
            for event, distinct_id, person, properties in found:
                assert person == known.get(distinct_id, person), event
                assert properties is not None or distinct_id not in known, event
            alive = {person for (person,) in sandbox.select("id", "persons")}
            current = {person for (person,) in rows("SELECT id FROM current_persons")}
            orphans = {person for (person,) in rows("SELECT id FROM persons_without_distinct_ids")}
            assert {owners[distinct_id] for distinct_id in sent} <= current <= alive and not orphans, (current - alive, orphans)
            seen.append(len(records["person_distinct_ids"]))
        moved = rows("SELECT count(*) FROM events_with_persons AS e JOIN events USING (id) WHERE e.person_id <> events.person_id")
        assert moved[0][0] > 0, "merges after the sync"
        if method["type"] == "export":
            assert seen[2] < seen[0], "changes only"
