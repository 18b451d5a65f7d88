"""The SQL of docs/verify.md and of `verify --sql` finds every damage of a table of events: on DuckDB, Postgres and ClickHouse."""

import csv
import datetime
import json
import re
import subprocess

import duckdb
import psycopg
import pytest
import support
from chdb.session import Session
from support import ROOT, SOURCE, posthog

EVENTS = ["project_id", "id", "event", "timestamp", "created_at", "distinct_id"]
DAYS = ["project_id", "day", "events", "checksum", "deleted", "checked_at", "proof"]
TYPES = {"project_id": "bigint", "events": "bigint", "deleted": "bigint", "day": "date"} | dict.fromkeys(["timestamp", "created_at", "checked_at"], "timestamptz")


class Database:
    """A database with a table of events and one of the days that PostHog has."""

    def __init__(self, cursor, mark):
        self.cursor, self.mark = cursor, mark
        for table, columns in {"events": EVENTS, "event_days": DAYS}.items():
            fields = ", ".join(f'"{name}" {self.kind(name)}' for name in columns)
            self.run(self.create(table, fields))

    def kind(self, name):
        return TYPES.get(name, "text")

    def create(self, table, fields):
        return f"CREATE TABLE {table} ({fields})"

    def run(self, statement):
        """The names of the columns of the result, and its rows."""
        self.cursor.execute(statement)
        names = [column[0] for column in self.cursor.description or []]
        return names, [["" if value is None else str(value) for value in row] for row in self.cursor.fetchall()] if names else []

    def load(self, table, columns, records):
        rows = [[record[name] for name in columns] for record in records]
        self.cursor.executemany(f"INSERT INTO {table} VALUES ({', '.join([self.mark] * len(columns))})", rows)


class ClickHouse(Database):
    def __init__(self, session):
        self.session = session
        self.run("CREATE DATABASE warehouse")
        self.run("USE warehouse")
        super().__init__(None, None)

    def kind(self, name):
        kinds = {"bigint": "Int64", "date": "Date32", "timestamptz": "DateTime64(6, 'UTC')"}
        return f"Nullable({kinds.get(TYPES.get(name), 'String')})"

    def create(self, table, fields):
        return f"CREATE TABLE {table} ({fields}) ENGINE = MergeTree ORDER BY tuple()"

    def run(self, statement):
        result = str(self.session.query(statement, "JSONCompactStringsEachRowWithNames"))
        lines = [["" if value == "ᴺᵁᴸᴸ" else value for value in json.loads(line)] for line in result.splitlines()]
        return (lines[0], lines[1:]) if lines else ([], [])

    def load(self, table, columns, records):
        rows = "\n".join(json.dumps({name: record[name] for name in columns}) for record in records)
        self.run(f"INSERT INTO {table} SETTINGS date_time_input_format = 'best_effort' FORMAT JSONEachRow {rows}")


@pytest.fixture(params=["duckdb", "postgres", "clickhouse"])
def database(request, tmp_path_factory):
    """The name of a dialect, and a database that speaks it."""
    if request.param == "duckdb":
        with duckdb.connect() as connection:
            yield request.param, Database(connection, "?")
    elif request.param == "postgres":
        with support.postgres(tmp_path_factory.mktemp("postgres")) as port:
            address = {"host": "127.0.0.1", "port": port, "user": "posthog", "dbname": "postgres"}
            with psycopg.connect(**address, autocommit=True, options="-c timezone=Asia/Kolkata") as connection:
                yield request.param, Database(connection.cursor(), "%s")
    else:
        session = Session(str(tmp_path_factory.mktemp("clickhouse")))
        yield request.param, ClickHouse(session)
        session.close()


def printed(*arguments):
    return subprocess.run([SOURCE, "verify", *arguments], check=True, capture_output=True, text=True).stdout


def read(tmp_path, config):
    """The records of `events` and `event_days`."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    catalog = [SOURCE, "catalog", "--config", tmp_path / "config.json", "--streams", "events,event_days"]
    (tmp_path / "catalog.json").write_bytes(subprocess.run(catalog, check=True, capture_output=True).stdout)
    command = [SOURCE, "read", "--config", tmp_path / "config.json", "--catalog", tmp_path / "catalog.json"]
    records = {"events": [], "event_days": []}
    for message in map(json.loads, subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()):
        if message["type"] == "RECORD":
            records[message["record"]["stream"]].append(message["record"]["data"])
    return records["events"], records["event_days"]


def compare(tmp_path, names, rows):
    """Exit code and result of `verify --counts`, by project and day."""
    with (tmp_path / "counts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    command = [SOURCE, "verify", "--config", tmp_path / "config.json", "--counts", tmp_path / "counts.csv"]
    done = subprocess.run(command, capture_output=True, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, {found["day"]: found["problem"] for found in result["differences"]}, result


def test_every_damage_is_found(tmp_path, database):
    dialect, warehouse = database
    with posthog("--events", "3000") as sandbox:
        events, days = read(tmp_path, sandbox.config())
        # Several loads of the same day, of which the newest counts.
        old = [{**day, "events": 1, "checked_at": "2020-01-01T00:00:00.000000Z"} for day in days[:3]]
        warehouse.load("event_days", DAYS, [*old, *days])
        numbers = [day["day"] for day in days]
        assert len(numbers) > 6 and sum(day["events"] for day in days) == len(events)
        of_day = {day: [event for event in events if event["timestamp"][:10] == day] for day in numbers}
        warehouse.load("events", EVENTS, events)
        figures = printed("--sql", dialect, "--table", "events")
        comparison = printed("--sql", dialect, "--table", "events", "--event-days", "event_days")
        page = (ROOT / "docs/verify.md").read_text()
        assert comparison in re.findall(r"^```sql\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        assert warehouse.run(comparison)[1] == []
        code, found, result = compare(tmp_path, *warehouse.run(figures))
        assert (code, found, result["days"]) == (0, {}, len(numbers)), result

        gone, fewer, other, twice, more = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
        replaced, extra = of_day[other][0], of_day[more][0]
        damaged = [event for day in numbers for event in of_day[day] if day != gone and event not in (of_day[fewer][0], replaced)]
        damaged.append({**replaced, "id": "00000000-0000-7000-8000-00000000abcd"})
        damaged += [of_day[twice][0]] * 2
        # A row of which nothing says when it was received counts.
        damaged.append({**extra, "id": "00000000-0000-7000-8000-00000000abce", "created_at": None})
        # What PostHog received after the last check says nothing.
        damaged.append({**extra, "id": "00000000-0000-7000-8000-00000000abcf", "created_at": "2200-01-01T00:00:00.000000Z"})
        warehouse.run("TRUNCATE TABLE events")
        warehouse.load("events", EVENTS, damaged)
        expected = {gone: "missing", fewer: "missing", other: "other events", twice: "duplicates", more: "too many"}
        names, rows = warehouse.run(comparison)
        assert names == ["project_id", "day", "problem", "in_posthog", "in_table", "duplicates"]
        assert {row[1]: row[2] for row in rows} == expected
        assert [int(row[5]) for row in rows if row[1] == twice] == [2]

        warehouse.run("TRUNCATE TABLE events")
        warehouse.load("events", EVENTS, damaged[:-1])
        code, found, result = compare(tmp_path, *warehouse.run(figures))
        assert (code, found) == (3, expected), result

        # A table without project and ingestion time.
        figures = printed("--sql", dialect, "--table", "events", "--project", str(sandbox.project))
        for column in ["project_id", "created_at"]:
            warehouse.run(f"ALTER TABLE events DROP COLUMN {column}")
        code, found, result = compare(tmp_path, *warehouse.run(figures))
        end = min(numbers[-1], datetime.datetime.now(datetime.timezone.utc).date().isoformat())
        whole = [day for day in numbers if day < end]
        assert expected.keys() <= set(whole)
        assert (code, found, result["days"]) == (3, expected, len(whole)), result
