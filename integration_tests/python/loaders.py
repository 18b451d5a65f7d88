"""All streams into DuckDB and into Postgres by PyAirbyte, and through what Meltano's tap-airbyte-wrapper does.

The truth is what `read` prints: every key of every stream. The events are those that SDKs sent: numbers
beyond 64 bits, which PyAirbyte cannot write to Postgres, are not among them; see docs/pyairbyte.md.
"""

import datetime
import json
import os
import pathlib
import subprocess

os.environ.update(AIRBYTE_OFFLINE_MODE="1", DO_NOT_TRACK="1")

import airbyte  # noqa: E402 - reads the environment when it is imported
import pytest  # noqa: E402
from airbyte.caches import DuckDBCache, PostgresCache  # noqa: E402

from support import SOURCE, posthog, postgres  # noqa: E402


SINGER = pathlib.Path(__file__).with_name(".venv-singer") / "bin/python"


@pytest.fixture(scope="module")
def sandbox():
    with posthog("--events", "0", "--dataset", "--lists") as running:
        # Nobody in the dataset has answered a survey.
        answer = {"$survey_id": "survey", "$survey_submission_id": "submission", "$survey_response": "Good"}
        running.capture([{"event": "survey sent", "distinct_id": "visitor", "properties": answer}])
        yield running


@pytest.fixture(scope="module")
def catalog(sandbox, tmp_path_factory):
    """The configured catalog with all streams, as `catalog` prints it, and the file that it is in."""
    path = tmp_path_factory.mktemp("source")
    (path / "config.json").write_text(json.dumps(sandbox.config()))
    printed = program("catalog", path)
    (path / "catalog.json").write_text(printed)
    return json.loads(printed), path


@pytest.fixture(scope="module")
def messages(catalog):
    """What `read` prints for all streams."""
    _, path = catalog
    return program("read", path, "--catalog", path / "catalog.json")


@pytest.fixture(scope="module")
def records(catalog, messages):
    """The records of all streams, by stream."""
    configured, _ = catalog
    found = {entry["stream"]["name"]: [] for entry in configured["streams"]}
    # Not by line feeds alone: no character of a text may end a line.
    for message in map(json.loads, messages.splitlines()):
        if message["type"] == "RECORD":
            found[message["record"]["stream"]].append(message["record"]["data"])
    assert all(found.values()), [stream for stream, records in found.items() if not records]
    return found


def program(command, path, *arguments):
    done = subprocess.run([SOURCE, command, "--config", path / "config.json", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


def keys(records, stream):
    """The primary keys of a stream's records."""
    path = [name for (name,) in stream["source_defined_primary_key"]]
    text = lambda value: str(value) if isinstance(value, datetime.date) else value
    return {tuple(text(record[name]) for name in path) for record in records}


@pytest.fixture(params=["DuckDB", "Postgres"])
def cache(request, tmp_path):
    if request.param == "DuckDB":
        yield DuckDBCache(db_path=tmp_path / "posthog.duckdb", schema_name="raw")
        return
    with postgres(tmp_path) as port:
        yield PostgresCache(
            host="127.0.0.1", port=port, username="posthog", password="none", database="postgres", schema_name="raw"
        )


def table(cache, stream):
    """The rows of a table as dictionaries, and its JSON columns."""
    with cache.get_sql_engine().connect() as connection:
        select = "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'raw' AND table_name = "
        types = dict(connection.exec_driver_sql(f"{select} '{stream}'").fetchall())
        rows = connection.exec_driver_sql(f"SELECT * FROM raw.{stream}").mappings().fetchall()
    return rows, {name for name, kind in types.items() if kind.lower().startswith("json")}


def test_pyairbyte_loads_all_streams(sandbox, catalog, records, cache, capfd):
    source = airbyte.get_source("source-posthog", config=sandbox.config(), local_executable=SOURCE, install_if_missing=False)
    source.select_all_streams()
    for full_refresh in [False, True]:
        source.read(cache, force_full_refresh=full_refresh)
        for entry in catalog[0]["streams"]:
            stream = entry["stream"]
            rows, json_columns = table(cache, stream["name"])
            assert keys(rows, stream) == keys(records[stream["name"]], stream), stream["name"]
            fields = stream["json_schema"]["properties"].items()
            documents = {name for name, field in fields if field["type"][1] in ("object", "array")}
            assert documents <= json_columns, (stream["name"], documents - json_columns)
    printed = "".join(capfd.readouterr())
    assert "Could not" not in printed, printed


def test_singer_loses_no_stream_and_no_value(catalog, messages, records):
    """Its SDK looks for `properties` in every object, and drops what it does not find there."""
    _, path = catalog
    done = subprocess.run(
        # The SDK looks for files beside a tap, so it must be a package and not the main program.
        [SINGER, "-c", "import singer_tap; singer_tap.main()", path / "catalog.json"],
        cwd=pathlib.Path(__file__).parent,
        input=messages,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for message in map(json.loads, done.stdout.splitlines()):
        if message["type"] == "SCHEMA":
            found[message["stream"]] = []
        elif message["type"] == "RECORD":
            found[message["stream"]].append(message["record"])
    assert found.keys() == records.keys()
    for stream, wanted in records.items():
        assert found[stream] == wanted, stream
