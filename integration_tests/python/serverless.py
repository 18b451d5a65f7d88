"""airbyte-serverless runs the source, a second driver besides PyAirbyte.

It starts any executable, reads its standard output and standard error as one, asks for every stream
incrementally that offers it, and keeps rows and states in tables of the destination. Its version
0.37 has the destinations `print` and `bigquery`; here its base class writes into SQLite, with the
states looked up as its BigQuery destination does.
"""

import json
import sqlite3
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from airbyte_serverless.connections import Connection
from airbyte_serverless.destinations import DESTINATION_CLASS_MAP, BaseDestination
from airbyte_serverless.sources import AirbyteSourceException

from support import SOURCE, objects, posthog

STREAMS = ["events", "persons", "projects"]


class SqliteDestination(BaseDestination):
    """Keeps every table as rows of JSON text, in the order of arrival."""

    def __init__(self, path, **other):
        super().__init__(**other)
        self.database = sqlite3.connect(path)

    def _write(self, record_type, records):
        self.database.execute(f"CREATE TABLE IF NOT EXISTS {record_type} (data TEXT)")
        self.database.executemany(f"INSERT INTO {record_type} VALUES (?)", [(row["_airbyte_data"],) for row in records])
        self.database.commit()

    def get_state(self):
        states = {state["stream"]["stream_descriptor"]["name"]: state for state in self.rows("_airbyte_states")}
        return list(states.values())

    def rows(self, table):
        known = self.database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone()
        return [json.loads(text) for (text,) in self.database.execute(f"SELECT data FROM {table}")] if known else []


@pytest.fixture(autouse=True)
def destination(tmp_path, monkeypatch):
    monkeypatch.setitem(DESTINATION_CLASS_MAP, "sqlite", SqliteDestination)
    return SqliteDestination(str(tmp_path / "serverless.sqlite"))


@pytest.fixture
def sandbox():
    with posthog("--events", "0", "--dataset") as running:
        yield running


def connection(config, tmp_path):
    return Connection(
        {
            "source": {"executable": str(SOURCE), "config": config, "streams": ",".join(STREAMS)},
            "destination": {"connector": "sqlite", "config": {"path": str(tmp_path / "serverless.sqlite"), "buffer_size_max": 1000}},
        }
    )


def event(at):
    return {"uuid": str(uuid.uuid4()), "event": "seen", "distinct_id": "anna", "timestamp": at.isoformat(), "properties": {"a": None}}


def compare(sandbox, destination, began):
    """The events and persons against what PostHog holds; gives the rows of the events in order."""
    events, persons = destination.rows("_airbyte_raw_events"), destination.rows("_airbyte_raw_persons")
    wanted = {row[0]: row[1:] for row in sandbox.select("uuid, event, distinct_id, properties, created_at", "events")}
    settled = {key for key, row in wanted.items() if datetime.fromisoformat(row[3].replace("Z", "+00:00")) < began}
    found = {row["uuid"]: [row["event"], row["distinct_id"], row["properties"]] for row in events}
    assert settled <= found.keys() <= wanted.keys(), (len(settled), len(found), len(wanted))
    for key, row in found.items():
        assert row == [*wanted[key][:2], objects(wanted[key][2])]
    people = {row[0]: objects(row[1]) for row in sandbox.select("id, properties", "persons")}
    newest = {row["id"]: row["properties"] for row in persons}
    assert newest.items() <= people.items() and len(newest) > 100
    return events


def test_sync_twice(sandbox, destination, tmp_path):
    began = datetime.now(timezone.utc)
    connection(sandbox.config(), tmp_path).run()
    first = compare(sandbox, destination, began)
    assert len(first) > 3000 and len(destination.rows("_airbyte_raw_projects")) == 1

    now = datetime.now(timezone.utc)
    new = [event(now), event(now - timedelta(days=45))]
    sandbox.capture(new)
    connection(sandbox.config(), tmp_path).run()
    second = compare(sandbox, destination, datetime.now(timezone.utc) - timedelta(seconds=5))[len(first) :]
    assert {sent["uuid"] for sent in new} <= {row["uuid"] for row in second}
    assert len(second) < len(first) / 2
    assert [row["id"] for row in destination.rows("_airbyte_raw_projects")] == [sandbox.project] * 2


def test_commands(sandbox, tmp_path):
    source = connection(sandbox.config(), tmp_path).source
    assert set(STREAMS) < set(source.available_streams)
    assert source.connection_status["status"] == "SUCCEEDED"
    assert "api_key: ${API_KEY}" in source.yaml_config_example
    assert source.documentation_url.startswith("https://")
    refused = connection(sandbox.config(api_key="phx_wrong"), tmp_path)
    assert refused.source.connection_status["status"] == "FAILED"
    with pytest.raises(AirbyteSourceException, match="config_error"):
        refused.run()
