"""docs/migrating.md, step by step: a table that Airbyte's own connector has filled becomes complete.

Airbyte's connector runs as its package has it, on the same stand-in, whose deprecated list of events returns at
most 1,000 at a time, as PostHog's does.
"""

import collections
import csv
import json
import os
import pathlib
import subprocess

import duckdb
from support import SOURCE, posthog

HERE = pathlib.Path(__file__).resolve().parent
THEIRS = HERE / ".venv-airbyte/bin/source-posthog"
TYPES = {"id": "TEXT", "event": "TEXT", "timestamp": "TIMESTAMPTZ", "distinct_id": "TEXT"}
COLUMNS = list(TYPES)
STREAM = {"name": "events", "json_schema": {}, "supported_sync_modes": ["full_refresh", "incremental"]}
CATALOG = {"streams": [{"stream": STREAM, "sync_mode": "incremental", "destination_sync_mode": "append_dedup"}]}


class Connection:
    """A connection of Airbyte: a configuration, a catalog, a state, and a table that is deduplicated by `id`."""

    def __init__(self, directory, config):
        self.directory, self.config, self.state = directory, config, []
        self.table = duckdb.connect()
        self.table.execute("SET timezone = 'UTC'")
        self.table.execute(f"CREATE TABLE events ({', '.join(map(' '.join, TYPES.items()))}, PRIMARY KEY (id))")

    def write(self, name, value):
        (self.directory / name).write_text(json.dumps(value))
        return self.directory / name

    def sync(self, program):
        """Reads with a connector and loads what comes. Returns how many records came."""
        command = [program, "read", "--config", self.write("config.json", self.config)]
        command += ["--catalog", self.write("catalog.json", CATALOG), "--state", self.write("state.json", self.state)]
        messages = [json.loads(line) for line in subprocess.run(command, check=True, capture_output=True).stdout.splitlines()]
        records = [message["record"]["data"] for message in messages if message["type"] == "RECORD"]
        self.state = [message["state"] for message in messages if message["type"] == "STATE"][-1:]
        # The last record of an id wins, as in a destination that deduplicates.
        rows = {record["id"]: {name: record[name] for name in COLUMNS} for record in records}
        (self.directory / "rows.jsonl").write_text("\n".join(map(json.dumps, rows.values())))
        if rows:
            rows = f"read_json('{self.directory}/rows.jsonl', columns = {TYPES})"
            self.table.execute(f"INSERT OR REPLACE INTO events SELECT {', '.join(COLUMNS)} FROM {rows}")
        return len(records)

    def verify(self, project):
        """Exit code and result of `verify`, as the page runs it."""
        sql = [SOURCE, "verify", "--sql", "duckdb", "--table", "events", "--project", str(project)]
        figures = self.table.execute(subprocess.run(sql, check=True, capture_output=True, text=True).stdout)
        with (self.directory / "counts.csv").open("w", newline="") as file:
            csv.writer(file).writerows([[column[0] for column in figures.description], *figures.fetchall()])
        config = self.write("config.json", self.config)
        compare = [SOURCE, "verify", "--config", config, "--counts", self.directory / "counts.csv"]
        done = subprocess.run(compare, capture_output=True, text=True)
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    def days(self):
        """Events of each day."""
        return dict(self.table.execute("SELECT strftime(timestamp, '%Y-%m-%d'), count(*) FROM events GROUP BY 1 ORDER BY 1").fetchall())


def test_the_walk_from_airbytes_connector_ends_with_every_event(tmp_path):
    with posthog("--events", "20000") as sandbox:
        config = sandbox.config(events_time_step=30)
        connection = Connection(tmp_path, config)
        events = {uuid: timestamp[:10] for uuid, timestamp in sandbox.select("toString(uuid), toString(timestamp)", "events")}
        stored = collections.Counter(events.values())
        connection.sync(THEIRS)
        lacking = connection.days()
        assert sum(lacking.values()) < sum(stored.values()) / 5, (lacking, stored)

        # The connector is replaced; configuration, catalog and state stay.
        connection.sync(SOURCE)
        code, result = connection.verify(sandbox.project)
        assert code == 3 and result["reread_days"], result
        assert {found["problem"] for found in result["differences"]} == {"missing"}, result

        connection.config = {**config, "reread_days": result["reread_days"]}
        named = sum(found["in_posthog"] for found in result["differences"])
        assert connection.sync(SOURCE) == named, "the days named come once more, and nothing else"
        code, result = connection.verify(sandbox.project)
        assert (code, result["differences"]) == (0, []), result
        complete = connection.days()
        assert complete == stored
        assert connection.sync(SOURCE) == 0

    if figures := os.environ.get("FIGURES"):
        days = {day: {"posthog": stored[day], "airbyte": lacking.get(day, 0), "here": complete[day]} for day in sorted(stored)}
        pathlib.Path(figures).write_text(json.dumps(days, indent=1))
