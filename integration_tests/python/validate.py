"""Every message of both programs against Airbyte's own models of the protocol, and every record
against the schema that `discover` gave.

The models (airbyte-protocol-models-pdv2) are generated from the protocol and accept unknown fields
wherever the protocol may grow. Here they are errors, and types must be right without conversion.
"""

import datetime
import itertools
import json
import re
import subprocess
import urllib.request

import pytest
from airbyte_protocol.models import AirbyteMessage, AirbyteStateBlob, ConfiguredAirbyteCatalog, ConnectorSpecification
from jsonschema import Draft7Validator, FormatChecker, validators
from pydantic import BaseModel

from support import DESTINATION, SOURCE, Handler, http_server, posthog

PAYLOADS = {
    "RECORD": "record",
    "STATE": "state",
    "LOG": "log",
    "SPEC": "spec",
    "CONNECTION_STATUS": "connectionStatus",
    "CATALOG": "catalog",
    "TRACE": "trace",
}
# https://docs.airbyte.com/platform/understanding-airbyte/supported-data-types
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")
FORMATS = FormatChecker(formats=())
INTEGER = Draft7Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
Validator = validators.extend(Draft7Validator, type_checker=INTEGER)


@FORMATS.checks("date-time", raises=ValueError)
def is_date_time(value):
    if isinstance(value, str):
        datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    return not isinstance(value, str) or bool(DATE_TIME.fullmatch(value))


def unknown_fields(model, raw, path=""):
    """The paths in `raw` that its model does not declare."""
    if isinstance(model, AirbyteStateBlob):
        return
    names = {field.alias or name: name for name, field in type(model).model_fields.items()}
    for key, value in raw.items():
        if key not in names:
            yield f"{path}.{key}"
            continue
        inner = getattr(model, names[key])
        pairs = zip(inner, value) if isinstance(inner, list) else [(inner, value)]
        for part, raw_part in pairs:
            if isinstance(part, BaseModel):
                yield from unknown_fields(part, raw_part, f"{path}.{key}")


def kinds_of(message):
    """What a message is, more exactly than its type."""
    kind, payload = message["type"], message[PAYLOADS[message["type"]]]
    if kind == "TRACE":
        inner = payload["type"].lower()
        others = {"error", "estimate", "stream_status", "analytics"} - {inner}
        assert inner in payload and not others & payload.keys(), message
        yield f"TRACE {payload['type']}"
        yield from (f"reason {reason['type']}" for reason in payload[inner].get("reasons", []))
    else:
        yield kind
    if kind == "RECORD" and "meta" in payload:
        yield "RECORD with changes"


class Run:
    """What a program has printed, validated."""

    def __init__(self, process):
        self.code, self.stderr = process.returncode, process.stderr
        self.lines = process.stdout.removesuffix(b"\n").split(b"\n") if process.stdout else []
        self.messages, self.kinds = [], set()
        for line in self.lines:
            raw, model = json.loads(line), AirbyteMessage.model_validate_json(line, strict=True)
            assert raw.keys() == {"type", PAYLOADS[raw["type"]]}, line
            assert not list(unknown_fields(model, raw)), (list(unknown_fields(model, raw)), line)
            self.messages.append(raw)
            self.kinds.update(kinds_of(raw))

    def payloads(self, kind):
        return [message[PAYLOADS[kind]] for message in self.messages if message["type"] == kind]


def run(program, command, directory, stdin=b"", **files):
    """Runs a program with files such as `config` and validates what it prints."""
    arguments = [program, command]
    for name, content in files.items():
        (directory / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        arguments += [f"--{name}", directory / f"{name}.json"]
    return Run(subprocess.run(arguments, input=stdin, capture_output=True, check=False))


def configured(discovered, mode, streams=("events", "persons", "projects")):
    """A configured catalog in `mode`, for streams that support it; it satisfies the models too."""
    catalog = {
        "streams": [
            {
                "stream": stream,
                "sync_mode": mode if mode in stream["supported_sync_modes"] else "full_refresh",
                "destination_sync_mode": "append",
            }
            for stream in discovered["streams"]
            if stream["name"] in streams
        ]
    }
    ConfiguredAirbyteCatalog.model_validate_json(json.dumps(catalog), strict=True)
    return catalog


def validate_records(result, discovered):
    """Every record against the schema of its stream; gives the number of records."""
    schemas = {stream["name"]: stream["json_schema"] for stream in discovered["streams"]}
    validator = {name: Validator(schema, format_checker=FORMATS) for name, schema in schemas.items()}
    for record in result.payloads("RECORD"):
        extra = record["data"].keys() - schemas[record["stream"]]["properties"].keys()
        assert not extra, (record["stream"], extra)
        errors = [f"{error.json_path}: {error.message}" for error in validator[record["stream"]].iter_errors(record["data"])]
        assert not errors, (record["stream"], errors)
    return len(result.payloads("RECORD"))


@pytest.fixture(scope="module")
def sandbox():
    with posthog("--events", "1500", "--seed", "23", "--lists") as running:
        yield running


@pytest.fixture(scope="module")
def discovered(sandbox, tmp_path_factory):
    result = run(SOURCE, "discover", tmp_path_factory.mktemp("discover"), config=sandbox.config())
    assert result.code == 0 and "CATALOG" in result.kinds
    (catalog,) = result.payloads("CATALOG")
    for stream in catalog["streams"]:
        Draft7Validator.check_schema(stream["json_schema"])
    return catalog


# The source


def test_spec(tmp_path):
    for program in (SOURCE, DESTINATION):
        result = run(program, "spec", tmp_path)
        (specification,) = result.payloads("SPEC")
        assert result.code == 0 and result.kinds == {"SPEC"}
        Draft7Validator.check_schema(specification["connectionSpecification"])
        ConnectorSpecification.model_validate_json(json.dumps(specification), strict=True)


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({}, "SUCCEEDED"),
        ({"api_key": "phx_wrong"}, "FAILED"),
        ({"api_key": None}, "FAILED"),
        ({"project_ids": [4242]}, "FAILED"),
        ({"start_date": 5}, "FAILED"),
        ({"method": {"type": "telepathy"}}, "FAILED"),
    ],
    ids=str,
)
def test_check(sandbox, tmp_path, other, status):
    result = run(SOURCE, "check", tmp_path, config=sandbox.config(**other))
    assert result.code == 0
    assert [answer["status"] for answer in result.payloads("CONNECTION_STATUS")] == [status]


@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
def test_read(sandbox, discovered, tmp_path, mode):
    config = sandbox.config(method={"type": "query", "page_size": 500, "person_properties": True})
    catalog = configured(discovered, mode)
    first = run(SOURCE, "read", tmp_path, config=config, catalog=catalog)
    assert first.code == 0 and validate_records(first, discovered) > 1500
    assert first.kinds >= {"RECORD", "STATE", "LOG", "TRACE ESTIMATE", "TRACE STREAM_STATUS"}

    states = {state["stream"]["stream_descriptor"]["name"]: state for state in first.payloads("STATE")}
    second = run(SOURCE, "read", tmp_path, config=config, catalog=catalog, state=list(states.values()))
    assert second.code == 0 and validate_records(second, discovered) > 0


def refusal(status, code, **headers):
    body = {"type": "error", "code": code, "detail": "Not now.", "attr": None}
    return lambda handler, _: handler.answer(status, json.dumps(body).encode(), Content_Type="application/json", **headers)


def cut_off(handler, body):
    """Announces the whole answer and sends half of it."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def hang_up(handler, _):
    handler.close_connection = True


def broken_documents(handler, body):
    """Answers with properties that are not JSON, as they may have been stored."""
    answer = json.loads(body)
    broken = [["{broken" if str(cell).startswith("{") else cell for cell in row] for row in answer["results"]]
    handler.answer(200, json.dumps({**answer, "results": broken}).encode(), Content_Type="application/json")


FAULTS = {
    "an error": refusal(500, "error"),
    "busy": refusal(503, "error", Retry_After="1"),
    "too many requests": refusal(429, "throttled", Retry_After="4"),
    "another server": lambda handler, _: handler.answer(502, b"<html>", Content_Type="text/html"),
    "cut off": cut_off,
    "no answer": hang_up,
    "broken documents": broken_documents,
}


def between(sandbox, fault, spoiled):
    """A server that passes requests on to PostHog and spoils the answers to some pages of rows, by number."""
    pages = itertools.count(1)

    class Between(Handler):
        def do_GET(self):
            self.pass_on(None)

        def do_POST(self):
            self.pass_on(self.body())

        def pass_on(self, body):
            headers = {"authorization": self.headers["authorization"], "content-type": "application/json"}
            request = urllib.request.Request(sandbox.url + self.path, body, headers)
            with urllib.request.urlopen(request) as answer:
                content = answer.read()
            if body is not None and b"properties" in body and spoiled(next(pages)):
                fault(self, content)
            else:
                self.answer(200, content, Content_Type="application/json")

    return http_server(Between)


@pytest.mark.parametrize("name", FAULTS)
def test_read_with_faults(sandbox, discovered, tmp_path, name):
    catalog = configured(discovered, "incremental")
    happened = []

    def spoiled(number):
        happened.append(number)
        return number == 2

    with between(sandbox, FAULTS[name], spoiled) as url:
        config = sandbox.config(base_url=url, concurrency=1, method={"type": "query", "page_size": 500})
        result = run(SOURCE, "read", tmp_path, config=config, catalog=catalog)
    assert result.code == 0 and len(happened) > 2 and validate_records(result, discovered) > 1500
    assert ("RECORD with changes" in result.kinds) == (name == "broken documents"), result.kinds
    assert ("reason RATE_LIMITED" in result.kinds) == (name == "too many requests"), result.kinds


def test_read_that_fails(sandbox, discovered, tmp_path):
    catalog = configured(discovered, "incremental")
    config = sandbox.config(attempts=1)
    with between(sandbox, FAULTS["an error"], lambda number: number > 1) as url:
        down = run(SOURCE, "read", tmp_path, config={**config, "base_url": url}, catalog=catalog)
    assert {status["stream_status"]["status"] for status in down.payloads("TRACE") if "stream_status" in status} >= {"INCOMPLETE"}
    for failed in (
        down,
        run(SOURCE, "read", tmp_path, config={**config, "api_key": "phx_wrong"}, catalog=catalog),
        run(SOURCE, "read", tmp_path, config={**config, "start_date": "yesterday"}, catalog=catalog),
        run(SOURCE, "read", tmp_path, config=config, catalog=catalog, state="{"),
        run(SOURCE, "read", tmp_path, config=config, catalog={"streams": 1}),
        run(SOURCE, "read", tmp_path, config="not json", catalog=catalog),
        run(SOURCE, "discover", tmp_path, config="not json"),
    ):
        assert failed.code == 1 and "TRACE ERROR" in failed.kinds, (failed.lines[-3:], failed.stderr)


# The destination


def webhook(answers):
    """A webhook that answers with the given statuses in turn, and with the last one from then on."""
    left = list(answers)

    class Webhook(Handler):
        def do_POST(self):
            records = json.loads(self.body() or b"[]")
            status = left.pop(0) if len(left) > 1 else left[0]
            self.answer(422 if status == 200 and any("poison" in record for record in records) else status)

    return http_server(Webhook)


@pytest.fixture(scope="module")
def delivery(sandbox, discovered, tmp_path_factory):
    """A configured catalog, and a source's lines for it."""
    catalog = configured(discovered, "incremental", ["events"])
    result = run(SOURCE, "read", tmp_path_factory.mktemp("delivery"), config=sandbox.config(), catalog=catalog)
    assert result.code == 0
    return catalog, result.lines


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({}, "SUCCEEDED"),
        ({"webhook_url": "nowhere"}, "FAILED"),
        ({"webhook_url": "http://hooks.example.com/"}, "FAILED"),
        ({"compression": "zip"}, "FAILED"),
        ({"batch": {"max_records": 0}}, "FAILED"),
    ],
    ids=str,
)
def test_destination_check(tmp_path, other, status):
    with webhook([200]) as url:
        result = run(DESTINATION, "check", tmp_path, config={"webhook_url": url, **other})
    assert result.code == 0
    assert [answer["status"] for answer in result.payloads("CONNECTION_STATUS")] == [status]


@pytest.mark.parametrize("answers", [[200], [500, 429, 503, 413, 200]], ids=str)
def test_write(delivery, tmp_path, answers):
    catalog, lines = delivery
    with webhook(answers) as url:
        config = {"webhook_url": url, "retry": {"first_wait_ms": 1}}
        result = run(DESTINATION, "write", tmp_path, b"\n".join([*lines, b""]), config=config, catalog=catalog)
    states = [json.loads(line)["state"]["stream"] for line in lines if json.loads(line)["type"] == "STATE"]
    assert result.code == 0 and [state["stream"] for state in result.payloads("STATE")] == states
    stated = sum(state["destinationStats"]["recordCount"] for state in result.payloads("STATE"))
    assert stated == sum(json.loads(line)["type"] == "RECORD" for line in lines)


def test_write_with_refused_records(delivery, tmp_path):
    catalog, lines = delivery
    poison = {"stream": "events", "data": {"id": "1", "poison": True}, "emitted_at": 1}
    # In the place of another record, because states say how many there are.
    lines = [*lines, b""]
    place = next(place for place, line in enumerate(lines) if json.loads(line)["type"] == "RECORD")
    lines[place] = json.dumps({"type": "RECORD", "record": poison}).encode()
    with webhook([200]) as url:
        config = {"webhook_url": url, "dead_letter_file": str(tmp_path / "refused.jsonl")}
        result = run(DESTINATION, "write", tmp_path, b"\n".join(lines), config=config, catalog=catalog)
    assert result.code == 0 and (tmp_path / "refused.jsonl").exists()
    assert sum(state["destinationStats"].get("rejectedRecordCount", 0) for state in result.payloads("STATE")) == 1


def test_write_that_fails(delivery, tmp_path):
    catalog, lines = delivery
    whole = b"\n".join([*lines, b""])
    cut = next(line for line in lines if json.loads(line)["type"] == "RECORD")[:-20]
    with webhook([410]) as gone, webhook([200]) as url:
        for failed in (
            run(DESTINATION, "write", tmp_path, whole, config={"webhook_url": gone}, catalog=catalog),
            run(DESTINATION, "write", tmp_path, cut, config={"webhook_url": url}, catalog=catalog),
            run(DESTINATION, "write", tmp_path, whole, config={"webhook_url": url}, catalog={"streams": 1}),
            run(DESTINATION, "write", tmp_path, whole, config={"webhook_url": "nowhere"}, catalog=catalog),
            run(DESTINATION, "write", tmp_path, whole, config="not json", catalog=catalog),
        ):
            assert failed.code == 1 and "TRACE ERROR" in failed.kinds, (failed.lines[-3:], failed.stderr)
