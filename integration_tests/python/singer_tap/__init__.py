"""What Meltano's tap-airbyte-wrapper makes of a source's messages, by the Singer SDK of its version.

    python -c "import singer_tap; singer_tap.main()" CATALOG < messages of `read` > Singer messages

Like the wrapper, it gives the SDK each stream's schema as it is, of a primary key the first column only,
and the data of its records. Runs in an environment of its own: the SDK needs older packages than
PyAirbyte, and is a plugin of pytest.
"""

import json
import pathlib
import sys

from singer_sdk import Stream, Tap
from singer_sdk.typing import PropertiesList


class Wrapped(Stream):
    def get_records(self, context):
        return self._tap.records.get(self.name, [])


class Wrapper(Tap):
    name = "tap-airbyte"
    config_jsonschema = PropertiesList().to_dict()

    def discover_streams(self):
        for entry in json.loads(pathlib.Path(sys.argv[1]).read_text())["streams"]:
            stream = Wrapped(tap=self, name=entry["stream"]["name"], schema=entry["stream"]["json_schema"])
            stream.primary_keys = entry["stream"]["source_defined_primary_key"][0]
            yield stream


def main():
    Wrapper.records = {}
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "RECORD":
            Wrapper.records.setdefault(message["record"]["stream"], []).append(message["record"]["data"])
    Wrapper(config={}).sync_all()
