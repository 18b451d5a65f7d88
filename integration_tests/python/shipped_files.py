"""What Airbyte reads beside the image of a connector: the metadata by Airbyte's own schema, the same
names and versions everywhere, and a configuration of acceptance tests that names files that exist.

The JSON files that it names are exercised by integration_tests/shipped_files.rs.
"""

import importlib.resources
import json
import re
import subprocess
import xml.etree.ElementTree

import pytest
import yaml
from airbyte_cdk.test.standard_tests import SourceTestSuiteBase
from airbyte_cdk.test.standard_tests.docker_base import classproperty
from jsonschema import Draft7Validator, FormatChecker

from support import DESTINATION, ROOT, SOURCE

SCHEMA = importlib.resources.files("airbyte_connector_models.metadata.v0") / "ConnectorMetadataDefinitionV0.json"
CONNECTORS = [("metadata.yaml", SOURCE, "source"), ("destination-patterns-metadata.yaml", DESTINATION, "destination")]


def metadata(file):
    return yaml.safe_load((ROOT / file).read_text())["data"]


def stage(name):
    """The last lines of the Dockerfile that make the image of this stage."""
    return (ROOT / "Dockerfile").read_text().split(f"FROM runtime AS {name}\n")[1].split("\nFROM ")[0]


def without_names(schema):
    """The schema without the names of its parts: its references count from the root, not from these."""
    if isinstance(schema, list):
        return [without_names(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: without_names(value) for key, value in schema.items() if key != "$id"}


@pytest.mark.parametrize("file", [file for file, _, _ in CONNECTORS])
def test_metadata_has_airbytes_shape(file):
    schema = without_names(json.loads(SCHEMA.read_text()))
    errors = Draft7Validator(schema, format_checker=FormatChecker()).iter_errors(yaml.safe_load((ROOT / file).read_text()))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize(("file", "program", "kind"), CONNECTORS)
def test_names_and_versions_agree(file, program, kind):
    data = metadata(file)
    name, version = data["dockerRepository"], str(data["dockerImageTag"])
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert printed == f"{name} {version}\n"
    assert data["connectorType"] == kind
    image = stage(kind)
    assert re.findall(r"^ARG VERSION=(.*)$", image, re.MULTILINE) == [version]
    assert f'io.airbyte.name="{name}"' in image
    assert 'io.airbyte.version="${VERSION}"' in image
    spec = json.loads(subprocess.run([program, "spec"], capture_output=True, check=True).stdout)["spec"]
    assert (data["documentationUrl"], data["protocolVersion"]) == (spec["documentationUrl"], spec["protocol_version"])


def test_definitions_differ():
    assert len({metadata(file)["definitionId"] for file, _, _ in CONNECTORS}) == len(CONNECTORS)


def test_suggested_streams_exist():
    catalog = json.loads((ROOT / "integration_tests/configured_catalog.json").read_text())
    assert set(metadata("metadata.yaml")["suggestedStreams"]["streams"]) <= {entry["stream"]["name"] for entry in catalog["streams"]}


def test_the_icon_is_a_square_drawing_without_foreign_parts():
    icon = xml.etree.ElementTree.parse(ROOT / metadata("metadata.yaml")["icon"]).getroot()
    assert icon.tag == "{http://www.w3.org/2000/svg}svg"
    assert icon.get("width") == icon.get("height")
    tags = {element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in icon.iter()}
    assert tags <= {"svg", "title", "g", "rect", "path", "circle"}, "nothing that is loaded or run"


def paths(value):
    """All values of keys that name files."""
    if isinstance(value, list):
        return {path for item in value for path in paths(item)}
    if not isinstance(value, dict):
        return set()
    named = {item for key, item in value.items() if key.endswith("_path")}
    return named.union(*(paths(item) for item in value.values()))


def test_the_acceptance_tests_name_files_that_exist():
    config = yaml.safe_load((ROOT / "acceptance-test-config.yml").read_text())
    assert config["connector_image"].split(":")[0] == metadata("metadata.yaml")["dockerRepository"]
    named = paths(config["acceptance_tests"])
    assert "integration_tests/configured_catalog.json" in named
    assert [path for path in sorted(named) if not path.startswith("secrets/") and not (ROOT / path).is_file()] == []


class Suite(SourceTestSuiteBase):
    """What the standard tests would run."""

    @classmethod
    def get_connector_root_dir(cls):
        return ROOT

    @classmethod
    def create_connector(cls, scenario):
        raise NotImplementedError("nothing is run here")

    @classproperty
    def acceptance_test_config(cls):
        """Without what the acceptance tests require and the standard tests refuse."""
        config = yaml.safe_load((ROOT / "acceptance-test-config.yml").read_text())
        for test in config["acceptance_tests"]["basic_read"]["tests"]:
            del test["expect_records"]
        return config


def test_the_acceptance_tests_are_what_the_standard_tests_read():
    scenarios = {str(scenario.config_path): scenario for scenario in Suite.get_scenarios()}
    assert set(scenarios) == {"secrets/config.json", "integration_tests/invalid_config.json"}
    real, invalid = scenarios["secrets/config.json"], scenarios["integration_tests/invalid_config.json"]
    assert set(real.sections) == {"spec", "connection", "discovery", "basic_read", "full_refresh"}
    assert (real.status, invalid.status, invalid.sections) == ("succeed", "failed", ("connection",))
    assert real.configured_catalog_path is None  # every stream
    catalog = json.loads((ROOT / "integration_tests/configured_catalog.json").read_text())
    assert {stream.name for stream in real.empty_streams} <= {entry["stream"]["name"] for entry in catalog["streams"]}
