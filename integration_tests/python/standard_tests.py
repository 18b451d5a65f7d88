"""Airbyte's standard tests (airbyte-cdk), which took the place of the connector acceptance tests.

They are made for connectors written in Python, which they call in their own process, and for images,
which need docker. Here `run_program` stands in for the call: the same arguments and files go to the
built programs, and the messages that these print go back unchanged.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest
from airbyte_cdk.test import entrypoint_wrapper
from airbyte_cdk.test.entrypoint_wrapper import EntrypointOutput
from airbyte_cdk.test.standard_tests import DestinationTestSuiteBase, SourceTestSuiteBase

from support import DESTINATION, SOURCE, Handler, http_server, posthog

DIRECTORY = tempfile.TemporaryDirectory()


class Program:
    """A connector for the standard tests, which know one by its method `spec`."""

    def __init__(self, path):
        self.path = path

    def spec(self, _):
        raise NotImplementedError("run_program runs it")


def run_program(source, args, **_):
    """Runs a program as `entrypoint_wrapper._run_command` runs a Python connector."""
    command = [source.path, *args]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = process.stdout.removesuffix("\n").split("\n")
    for line in lines:
        json.loads(line)  # the standard tests would take it for a log message
    output = EntrypointOutput(messages=lines, command=[str(part) for part in command], stderr=process.stderr)
    # The standard tests look at the messages only.
    assert (process.returncode != 0) == bool(output.errors), f"{output} ended with {process.returncode}"
    return output


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    monkeypatch.setattr(entrypoint_wrapper, "_run_command", run_program)
    monkeypatch.setattr(tempfile, "tempdir", DIRECTORY.name)  # where the standard tests leave files


def acceptance_test_config(connection, **sections):
    """What acceptance-test-config.yml says: the configurations by command, for `check` with the outcome."""
    tests = {section: [{"config_path": f"configs/{name}.json"} for name in names] for section, names in sections.items()}
    tests["connection"] = [{"config_path": f"configs/{name}.json", "status": status} for name, status in connection.items()]
    return {"test_strictness_level": "high", "acceptance_tests": {section: {"tests": entries} for section, entries in tests.items()}}


def write(suite, configurations):
    for name, configuration in configurations.items():
        path = suite.get_connector_root_dir() / "configs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(configuration))


class Built:
    """The parts in which a built program differs from a Python connector."""

    program: Path

    @classmethod
    def get_connector_root_dir(cls):
        return Path(DIRECTORY.name) / cls.program.name

    @classmethod
    def create_connector(cls, scenario):
        return Program(cls.program)


class TestSource(Built, SourceTestSuiteBase):
    program = SOURCE
    acceptance_test_config = acceptance_test_config(
        spec=["small", "full"],
        connection={
            "small": "succeed",
            "full": "succeed",
            "wrong_key": "failed",
            "unknown_project": "failed",
            "unreachable": "failed",
            "not_a_date": "failed",
        },
        discovery=["small", "full"],
        basic_read=["small", "full"],
        full_refresh=["small", "full"],
    )

    @pytest.fixture(scope="class", autouse=True)
    def configurations(self):
        with posthog("--events", "500", "--seed", "5", "--lists") as sandbox:
            answer = {"$survey_id": "survey", "$survey_submission_id": "submission", "$survey_response": "Good"}
            sandbox.capture([{"event": "survey sent", "distinct_id": "visitor", "properties": answer}])
            small = sandbox.config()
            full = {
                "end_date": "2100-01-01T00:00:00Z",
                "project_ids": [sandbox.project],
                "exclude_events": ["nothing"],
                "rate_limit_share": 0.5,
                "concurrency": 1,
                "method": {"type": "query", "page_size": 100, "person_properties": True},
            }
            broken = {
                # The search for secrets in the output looks for long values with digits only.
                "wrong_key": {"api_key": "phx_wrong_but_secret_4711"},
                "unknown_project": {"project_ids": [4242]},
                # A port where nothing listens, and not for long.
                "unreachable": {"base_url": "http://127.0.0.1:1", "attempts": 1},
                "not_a_date": {"start_date": "yesterday"},
            }
            write(type(self), {"small": small, "full": {**small, **full}})
            write(type(self), {name: {**small, **other} for name, other in broken.items()})
            yield


class Accepting(Handler):
    """A webhook."""

    def do_POST(self):
        self.body()
        self.answer(200)


class TestDestination(Built, DestinationTestSuiteBase):
    program = DESTINATION
    acceptance_test_config = acceptance_test_config(
        spec=["small", "full"],
        connection={"small": "succeed", "full": "succeed", "no_address": "failed", "not_encrypted": "failed"},
    )

    @pytest.fixture(scope="class", autouse=True)
    def configurations(self):
        with http_server(Accepting) as url:
            full = {
                "webhook_url": f"{url}/hook",
                "record_shape": "airbyte",
                "batch": {"max_records": 10},
                "compression": "gzip",
                "bearer_token": "a-secret-token-4711",
                "headers": [{"name": "X-Team", "value": "a-secret-value-4711"}],
            }
            not_encrypted = {"webhook_url": "http://hooks.example.com/hook"}
            write(type(self), {"small": {"webhook_url": f"{url}/hook"}, "full": full})
            write(type(self), {"no_address": {"webhook_url": "nowhere"}, "not_encrypted": not_encrypted})
            yield
