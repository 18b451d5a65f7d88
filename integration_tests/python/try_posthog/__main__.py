"""Asks a real PostHog what is only known from its source, and compares it with the sandbox.

Environment:

* POSTHOG_API_KEY and PROJECT_ID
* BASE_URL, by default https://us.posthog.com
* YES=1 does not ask before it starts
* LIMITS=1 also finds out how many export runs and pages are too many
* BEGIN is the first instant of the hour of ingestion that is read, such as 2026-11-26T10:00:00Z; by default an hour
  of the last day with few events
* RUN_SECONDS is the patience with an export run, by default 900
* OUT is the folder for fixtures, by default target/try-posthog/<date>

Exits with 0 when everything was asked, also if things differ; with 2 when it could not run; with 130 after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Iterator

from client import CannotRun, Client, Interrupted, Unanswered
from exports import Exports
from questions import QUESTIONS, Asker, Fact, Facts, ask_all, cost, parse
from recorder import Recorder
from scrub import Scrubber

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
SANDBOX = "--port 0 --server cloud-2026 --exports --lists --limits --run-seconds 2".split()
WIDTHS = (4, 42, 38, 38, 12)


def say(text: str = "") -> None:
    """One line on stdout."""
    print(text, flush=True)


@contextlib.contextmanager
def sandbox() -> Iterator[dict[str, str]]:
    """A sandbox that stands for PostHog Cloud; yields what its first line says."""
    program = TARGET / "debug" / "posthog-sandbox"
    if not program.exists():
        raise CannotRun(f"{program} is missing; `make try-posthog` builds it.")
    # In a group of its own, so that Ctrl-C is left to this program.
    with subprocess.Popen([program, *SANDBOX], stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


def populate(url: str, token: str) -> None:
    """Gives the sandbox visitors, some of whom identify themselves later: two persons become one."""
    events = []
    for number in range(20):
        session = f"019a0000-0000-7000-8000-{number:012x}"
        common = {"$session_id": session, "$current_url": "https://shop.example.com/", "email": f"v{number}@example.com"}
        for event, distinct_id, more in (
            ("$pageview", f"anonymous-{number}", {"$set": {"plan": "free"}}),
            ("$pageview", f"member-{number}", {"$set": {"plan": "paid"}}),
            ("$identify", f"member-{number}", {"$anon_distinct_id": f"anonymous-{number}"} if number % 2 else {}),
        ):
            events.append({"event": event, "distinct_id": distinct_id, "properties": {**common, **more}})
    body = json.dumps({"api_key": token, "batch": events}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/batch/", body, {"content-type": "application/json"})).close()


def verdict(ours: Fact, theirs: Fact) -> tuple[str, str, str]:
    """What the table shows of a fact: sandbox, PostHog, verdict."""
    if isinstance(theirs, Unanswered):
        return "", "", f"not answered because {theirs}"
    if isinstance(ours, Unanswered):
        found = ", ".join(theirs) if isinstance(theirs, list) else theirs
        return "", found, f"not answered because the sandbox has no answer: {ours}"
    if isinstance(ours, list) and isinstance(theirs, list):
        if ours == theirs:
            return ", ".join(ours) or "none", "the same", "agrees"
        lacks = [item for item in ours if item not in theirs]
        adds = [item for item in theirs if item not in ours]
        if not lacks and not adds:
            return ", ".join(ours), ", ".join(theirs), "differs"
        return "has besides: " + (", ".join(lacks) or "nothing"), "has besides: " + (", ".join(adds) or "nothing"), "differs"
    return str(ours), str(theirs), "agrees" if ours == theirs else "differs"


def rows(ours: dict[str, Facts], theirs: dict[str, Facts]) -> list[dict[str, str]]:
    """The table: one row for each fact that either side has."""
    table = []
    for number, title, _ in QUESTIONS:
        one, other = ours[number], theirs[number]
        names = [name for name in dict.fromkeys([*one, *other]) if name] or [""]
        for name in names:
            missing = Unanswered("there is nothing to compare")
            left, right, said = verdict(one.get(name, one.get("", missing)), other.get(name, other.get("", missing)))
            table.append({"question": number, "fact": name or title, "sandbox": left, "posthog": right, "verdict": said})
    return table


def show(table: list[dict[str, str]]) -> None:
    """Prints the table, wrapped, and the sums."""

    def line(cells: list[str]) -> None:
        wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, WIDTHS)]
        for number in range(max(map(len, wrapped))):
            parts = [part[number] if number < len(part) else "" for part in wrapped]
            say(" ".join(part.ljust(width) for part, width in zip(parts, WIDTHS)).rstrip())

    line(["", "question", "sandbox", "PostHog", ""])
    for row in table:
        if row["verdict"].startswith("not answered"):
            if row["posthog"]:
                line([row["question"], row["fact"], "", row["posthog"]])
            say(f"{row['question'].ljust(WIDTHS[0])} {row['fact'].ljust(WIDTHS[1])} {row['verdict']}")
        else:
            line([row["question"], row["fact"], row["sandbox"], row["posthog"], row["verdict"]])
    count = {word: sum(row["verdict"].startswith(word) for row in table) for word in ("agrees", "differs", "not answered")}
    say(f"\n{count['agrees']} agree, {count['differs']} differ, {count['not answered']} not answered")


def confirm() -> None:
    """Lets the user say no."""
    if os.environ.get("YES") == "1":
        return
    if not sys.stdin.isatty():
        raise CannotRun("Nobody can be asked whether to go on; set YES=1.")
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise CannotRun("Nothing was asked besides the count.")


def instant(text: str) -> datetime.datetime:
    """An hour's begin; the hour has to be over."""
    try:
        begin = parse(text)
    except ValueError:
        raise CannotRun(f"BEGIN={text} is no instant such as 2026-11-26T10:00:00Z.") from None
    if begin > datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1):
        raise CannotRun(f"The hour that begins at {text} is not over.")
    return begin


def folder() -> pathlib.Path:
    """A new folder for fixtures."""
    wanted = pathlib.Path(os.environ.get("OUT") or TARGET / "try-posthog" / f"{datetime.date.today()}")
    choices = [wanted, *(wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 1000))]
    out = next(choice for choice in choices if not choice.exists() or not any(choice.iterdir()))
    out.mkdir(parents=True, exist_ok=True)
    return out


def examine(asker: Asker, who: str) -> dict[str, Facts]:
    """Asks everything; whatever was started has ended or is cancelled when this returns."""
    try:
        return ask_all(asker, lambda text: print(f"{who}: {text}", file=sys.stderr, flush=True))
    finally:
        if left := asker.exports.close():
            say(f"These export runs could not be cancelled; look at them in PostHog: {', '.join(left)}")


def compare(key: str, project: str, base_url: str, stop: threading.Event) -> int:
    """The whole program."""
    limits = os.environ.get("LIMITS") == "1"
    out = folder()
    client = Client(base_url, key, project, Recorder(out, Scrubber(key, project, base_url)), stop)
    asker = Asker(client, Exports(client, float(os.environ.get("RUN_SECONDS") or 900)), limits)
    begin = os.environ.get("BEGIN")
    asker.choose_interval(instant(begin) if begin else None)
    say(f"{base_url}, project {project}: {cost(asker.rows, limits)}.")
    confirm()
    with sandbox() as ready:
        url, own = ready["url"], Scrubber(ready["api_key"], str(ready["project"]), ready["url"])
        twin = Client(url, ready["api_key"], str(ready["project"]), Recorder(None, own), stop)
        other = Asker(twin, Exports(twin, 20), limits)
        populate(url, ready["token"])
        # What was sent just now is to lie before the end.
        twin.wait(1)
        other.choose_interval(datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1))
        ours = examine(other, "sandbox")
    theirs = examine(asker, "PostHog")
    text = json.dumps(rows(ours, theirs), indent=1, ensure_ascii=False)
    table = json.loads(client.recorder.scrub.sentence(text))
    show(table)
    (out / "table.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"{client.recorder.written} fixtures in {out}; look through them before you pass them on.")
    say(f"posthog-sandbox --replay {out} serves them.")
    return 0


def main() -> int:
    """Reads the environment and turns ends into exit codes."""
    key, project = (os.environ.get(name, "").strip() for name in ("POSTHOG_API_KEY", "PROJECT_ID"))
    base_url = (os.environ.get("BASE_URL") or "https://us.posthog.com").strip().rstrip("/")
    stop = threading.Event()

    def interrupt(*_: object) -> None:
        # A request that is on its way may start a run, so it is waited for.
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        if not key or not project.isdigit():
            raise CannotRun("Set POSTHOG_API_KEY and PROJECT_ID (the number under Settings > Project).")
        if not re.fullmatch(r"[!-~]+", key):
            raise CannotRun("POSTHOG_API_KEY has characters that no API key has.")
        if not base_url.startswith("https://") and not base_url.startswith(("http://127.0.0.1", "http://localhost")):
            raise CannotRun("BASE_URL has to begin with https://, or the key would be sent in the clear.")
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, interrupt)
        return compare(key, project, base_url, stop)
    except OSError as error:
        print(f"{error.strerror}: {error.filename}", file=sys.stderr)
        return 2
    except (CannotRun, Unanswered) as sentence:
        print(str(sentence).replace(key or "\0", "<API key>"), file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
