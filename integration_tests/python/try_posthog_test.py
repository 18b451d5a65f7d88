"""`make try-posthog` against stand-ins: what it prints, what it records, and what becomes of its export runs."""

import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

import support

PROGRAM = pathlib.Path(__file__).with_name("try_posthog")
SANDBOX = ["--exports", "--lists", "--limits", "--run-seconds", "2", "--events", "50"]
# What must not leave the account, planted as an SDK would send it.
PERSONAL = {
    "distinct_id": "jane.roe@customer-example.org",
    "name": "Jane Roe-Fitzgerald",
    "page": "https://intranet.customer-example.org/accounts/4711?token=s3cr3t-t0k3n",
    "address": "203.0.113.77",
    "key of a property": "internal_margin_percent",
    "number": 8675309,
    "uuid": "7f0e6c1a-5a31-4d0e-9b57-0c7f2b9d1e55",
    "event": "contract signed by Roe",
    "project token": "phc_sandbox",
    "API key": "phx_full",
}


def plant(posthog):
    """Sends the personal data, and persons that are merged later."""
    properties = {
        "$current_url": PERSONAL["page"],
        "$ip": PERSONAL["address"],
        "$session_id": PERSONAL["uuid"],
        PERSONAL["key of a property"]: PERSONAL["number"],
        "$set": {"name": PERSONAL["name"], "email": PERSONAL["distinct_id"]},
    }
    identify = {**properties, "$anon_distinct_id": "before-she-was-known"}
    posthog.capture([
        {"event": PERSONAL["event"], "distinct_id": "before-she-was-known", "properties": properties},
        {"event": PERSONAL["event"], "distinct_id": PERSONAL["distinct_id"], "properties": properties},
        {"event": "$identify", "distinct_id": PERSONAL["distinct_id"], "properties": identify},
    ])  # fmt: skip
    time.sleep(1.1)  # PostHog accepts whole seconds as the end of the hour.


def environment(posthog, **other):
    begin = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    settings = {"POSTHOG_API_KEY": posthog.api_key, "PROJECT_ID": str(posthog.project), "BASE_URL": posthog.url}
    wait = {"YES": "1", "RUN_SECONDS": "8", "BEGIN": f"{begin:%Y-%m-%dT%H:%M:%SZ}"}
    return {**os.environ, "CARGO_TARGET_DIR": str(support.PROGRAMS.parent), **settings, **wait, **other}


def ask(posthog, out, **other):
    """Runs the program; returns exit code, everything it printed, and the rows of its table."""
    settings = environment(posthog, OUT=str(out), **other)
    done = subprocess.run([sys.executable, PROGRAM], env=settings, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    table = out / "table.json"
    return done.returncode, done.stdout + done.stderr, json.loads(table.read_text()) if table.exists() else []


def runs(posthog):
    """The statuses of all export runs."""
    url = f"{posthog.url}/api/projects/{posthog.project}/file_download_batch_exports/?limit=1000"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"authorization": f"Bearer {posthog.api_key}"})) as answer:
        return [run["status"] for run in json.load(answer)["results"]]


@pytest.fixture(scope="module", params=["cloud-2026", "before-2026"])
def asked(request, tmp_path_factory):
    """A run against each server: its name, exit code, output, table and folder."""
    out = tmp_path_factory.mktemp(request.param)
    with support.posthog(*SANDBOX, "--server", request.param) as posthog:
        plant(posthog)
        code, output, table = ask(posthog, out)
        assert not {"Starting", "Running"} & set(runs(posthog)), "an export run was left behind"
    return request.param, code, output, table, out


def test_sandbox_agrees_with_itself_and_differs_from_an_older_server(asked):
    server, code, output, table, _ = asked
    assert code == 0, output
    differing = {row["fact"] for row in table if row["verdict"] == "differs"}
    agreeing = {row["fact"] for row in table if row["verdict"] == "agrees"}
    assert "person_id as ingested, of a merged person" in agreeing
    assert {row["question"] for row in table} == {str(number) for number in range(1, 15)}
    if server == "cloud-2026":
        assert not differing and len(agreeing) > 75, output
    else:
        assert {"records_completed of events", "columns of persons", "status of an empty hour"} <= differing
        assert all(fact.split()[0] in output for fact in differing)


def test_cost_is_said_first(asked):
    _, _, output, _, _ = asked
    first = output.splitlines()[0]
    assert "queries" in first and "export runs" in first and "rows that PostHog may bill" in first


def test_nothing_personal_is_printed_or_recorded(asked):
    _, _, output, _, out = asked
    fixtures = sorted(out.glob("fixture-*.json"))
    assert len(fixtures) > 50
    texts = {path.name: path.read_text() for path in fixtures} | {"table": (out / "table.json").read_text(), "output": output}
    for what, value in {**PERSONAL, "anonymous id": "before-she-was-known", "host": "customer-example"}.items():
        found = [name for name, text in texts.items() if str(value) in text]
        assert not found, f"{what} is in {found}"
    assert not [name for name, text in texts.items() if name.startswith("fixture") and "/projects/1001" in text]


def test_recorded_server_answers_the_same(asked, tmp_path):
    _, _, _, table, out = asked
    with support.posthog(*SANDBOX, "--server", "forgiving", "--replay", out) as posthog:
        code, output, again = ask(posthog, tmp_path)
    assert code == 0, output
    assert again == table


def test_interrupt_cancels_what_was_started(tmp_path):
    with support.posthog(*SANDBOX[:-4], "--run-seconds", "600", "--server", "cloud-2026") as posthog:
        settings = environment(posthog, OUT=str(tmp_path), RUN_SECONDS="600")
        process = subprocess.Popen([sys.executable, PROGRAM], env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(runs(posthog)) < 4:
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert set(runs(posthog)) == {"Cancelled"}


def test_nothing_is_started_without_consent(tmp_path):
    with support.posthog(*SANDBOX, "--server", "cloud-2026") as posthog:
        code, output, _ = ask(posthog, tmp_path, YES="")
        assert code == 2 and "set YES=1" in output
        assert runs(posthog) == []


@pytest.mark.parametrize("status, sentence", [(401, "does not know the API key"), (403, "refuses the API key")])
def test_a_refused_key_ends_it_with_a_sentence_and_is_not_repeated(tmp_path, status, sentence):
    class Echo(support.Handler):
        """Refuses, and shows the key wherever a server could."""

        def do_POST(self):
            self.body()
            key = self.headers["Authorization"].removeprefix("Bearer ")
            error = {"type": "authentication_error", "code": "x", "detail": f"key {key}!", "attr": key, key: {key: [key]}}
            self.answer(status, json.dumps(error).encode(), X_PostHog_Echo=key, Content_Type="application/json")

    with support.http_server(Echo) as url:
        posthog = support.PostHog({"url": url, "project": 77, "api_key": "phx_of-nobody-else", "token": ""})
        code, output, _ = ask(posthog, tmp_path)
    assert code == 2 and sentence in output and "Traceback" not in output
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert written and posthog.api_key not in output + written


def test_waits_as_long_as_it_is_told(tmp_path):
    times = []

    class Busy(support.Handler):
        def do_POST(self):
            self.body()
            times.append(time.monotonic())
            if len(times) == 1:
                self.answer(429, b'{"type":"throttled_error","code":"throttled","detail":"Wait.","attr":null}', Retry_After="2")
            else:
                self.answer(401, b"{}")

    with support.http_server(Busy) as url:
        posthog = support.PostHog({"url": url, "project": 77, "api_key": "phx_x", "token": ""})
        code, _, _ = ask(posthog, tmp_path)
    assert code == 2 and times[1] - times[0] >= 2
