"""acceptance-test-config.yml by the rules of Airbyte's connector acceptance tests at `high` strictness.

The package connector-acceptance-test is in no index; these are the rules of its `config.py` (which keys
there are), `conftest.py`, `plugin.py`, `tests/test_core.py` and `tests/test_incremental.py`.
"""

import copy
import json
import subprocess

import pytest
import yaml
from jsonschema import Draft7Validator

from support import ROOT, SOURCE

TEXT, FLAG, NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
SECTIONS = ["spec", "connection", "discovery", "basic_read", "full_refresh", "incremental"]


def closed(required=(), **properties):
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def listed(item):
    return {"type": "array", "items": item}


NAMED = closed(["name"], name=TEXT, bypass_reason=TEXT)
COMMON = {"config_path": TEXT, "timeout_seconds": NUMBER, "deployment_mode": {"enum": ["cloud", "oss"]}}
CATALOG = {"configured_catalog_path": TEXT, "client_container_config": {"type": "object"}}
COMPATIBILITY = {"backward_compatibility_tests_config": closed(previous_connector_version=TEXT, disable_for_version=TEXT)}
TESTS = {
    "spec": closed(**COMMON, **COMPATIBILITY, spec_path=TEXT, auth_default_method=closed(oauth=FLAG, bypass_reason=TEXT)),
    "connection": closed(**COMMON, status={"enum": ["succeed", "failed", "exception"]}),
    "discovery": closed(**COMMON, **COMPATIBILITY, validate_primary_keys_data_type=FLAG),
    "basic_read": closed(
        **COMMON,
        **CATALOG,
        empty_streams=listed(NAMED),
        expect_records=closed(bypass_reason=TEXT, path=TEXT, exact_order=FLAG),
        validate_schema=FLAG,
        validate_stream_statuses=FLAG,
        validate_state_messages=FLAG,
        validate_primary_keys_data_type=FLAG,
        fail_on_extra_columns=FLAG,
        validate_data_points=FLAG,
        expect_trace_message_on_failure=FLAG,
        file_types={"type": "object"},
    ),
    "full_refresh": closed(**COMMON, **CATALOG, ignored_fields={"type": "object", "additionalProperties": listed(NAMED)}),
    "incremental": closed(
        **COMMON,
        **CATALOG,
        # Other keys are ignored here, but would have no effect.
        future_state=closed(future_state_path=TEXT, missing_streams=listed(NAMED), bypass_reason=TEXT, cursor_format={}),
        skip_comprehensive_incremental_tests=FLAG,
    ),
    "connector_attributes": {"type": "object"},
    "connector_documentation": {"type": "object"},
}
SCHEMA = closed(
    ["connector_image", "acceptance_tests"],
    connector_image=TEXT,
    base_path=TEXT,
    test_strictness_level={"enum": ["high", "low"]},
    custom_environment_variables={"type": "object"},
    acceptance_tests=closed(**{name: closed(bypass_reason=TEXT, tests=listed(test)) for name, test in TESTS.items()}),
)


def problems(config, discovered):
    """What is wrong with a configuration, for a connector that discovers these streams."""
    found = [f"{error.json_path}: {error.message}" for error in Draft7Validator(SCHEMA).iter_errors(config)]
    if config.get("test_strictness_level") != "high":
        found.append("the strictness is not high")
    sections = config["acceptance_tests"]
    for name in SECTIONS:
        section = sections.get(name)
        if section is None:
            found.append(f"{name} must be configured")
        elif bool(section.get("tests")) == bool(section.get("bypass_reason")):
            found.append(f"{name} needs either tests or a reason")
    for test in entries(config, "basic_read"):
        expected = test.get("expect_records")
        if "configured_catalog_path" in test:
            found.append("basic_read has a catalog of its own")
        if expected is None:
            found.append("expect_records must be configured")
        elif ("path" in expected) == bool(expected.get("bypass_reason")):
            found.append("expect_records needs either a path or a reason")
        empty = test.get("empty_streams", [])
        found += [f"{stream['name']} may be empty for no reason" for stream in empty if not stream.get("bypass_reason")]
        found += [f"{stream['name']} is no stream" for stream in empty if stream["name"] not in discovered]
    for test in entries(config, "incremental"):
        future = test.get("future_state") or {}
        if future.get("bypass_reason") is not None:
            continue
        if not future.get("future_state_path"):
            found.append("incremental needs a state from the future or a reason")
            continue
        states = {state["stream"]["stream_descriptor"]["name"] for state in read(future["future_state_path"])}
        missing = future.get("missing_streams", [])
        found += [f"{stream['name']} is missing for no reason" for stream in missing if not stream.get("bypass_reason")]
        # The sync must produce no records, so a stream without such a state must not be in the catalog.
        found += [f"{stream} has no state from the future" for stream in sorted(chosen(test, discovered) - states)]
    return found


def entries(config, section):
    return config["acceptance_tests"].get(section, {}).get("tests", [])


def read(path):
    return json.loads((ROOT / path).read_text())


def chosen(test, discovered):
    """The incremental streams that a test is about."""
    incremental = {name for name, stream in discovered.items() if "incremental" in stream["supported_sync_modes"]}
    if "configured_catalog_path" not in test:
        return incremental
    return incremental & {entry["stream"]["name"] for entry in read(test["configured_catalog_path"])["streams"]}


@pytest.fixture(scope="module")
def discovered(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "config.json"
    path.write_text(json.dumps({"api_key": "phx_none", "base_url": "http://127.0.0.1:1", "start_date": "2026-01-01T00:00:00Z"}))
    done = subprocess.run([SOURCE, "discover", "--config", path], capture_output=True, text=True, check=True)
    messages = [json.loads(line) for line in done.stdout.split("\n") if line]
    (catalog,) = [message["catalog"] for message in messages if message["type"] == "CATALOG"]
    return {stream["name"]: stream for stream in catalog["streams"]}


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "acceptance-test-config.yml").read_text())


def test_the_configuration_is_valid_at_high_strictness(config, discovered):
    assert problems(config, discovered) == []


def test_every_stream_of_a_catalog_exists(config, discovered):
    for section in ["full_refresh", "incremental"]:
        for test in entries(config, section):
            names = {entry["stream"]["name"] for entry in read(test["configured_catalog_path"])["streams"]}
            assert names <= discovered.keys(), test


BREAKS = {
    "basic_read has a catalog": lambda basic, future: basic.update(configured_catalog_path="integration_tests/configured_catalog.json"),
    "expect_records must be": lambda basic, future: basic.pop("expect_records"),
    "either a path or a reason": lambda basic, future: basic["expect_records"].update(path="records.jsonl"),
    "may be empty for no reason": lambda basic, future: basic["empty_streams"][0].pop("bypass_reason"),
    "nothing is no stream": lambda basic, future: basic["empty_streams"].append({"name": "nothing", "bypass_reason": "."}),
    "'streams' was unexpected": lambda basic, future: basic.update(streams=[]),
    "needs a state from the future": lambda basic, future: future.pop("future_state"),
    "events has no state": lambda basic, future: future.update(future_state={"future_state_path": "integration_tests/abnormal_state.json"}),
}


@pytest.mark.parametrize("problem", BREAKS)
def test_what_is_wrong_is_found(config, discovered, problem):
    broken = copy.deepcopy(config)
    BREAKS[problem](entries(broken, "basic_read")[0], entries(broken, "incremental")[0])
    assert any(problem in found for found in problems(broken, discovered)), problems(broken, discovered)
