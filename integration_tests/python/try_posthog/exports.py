"""Export runs: everything that is started ends, by itself or by being cancelled."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from client import CannotRun, Client, Reply, Unanswered
from recorder import unpack

ENDED = ("Completed", "Failed", "FailedRetryable", "FailedBilling", "Cancelled", "Terminated", "TimedOut")
PATH = "file_download_batch_exports/"


@dataclass
class Run:
    """A run and every different response to a poll."""

    id: str
    statuses: list[str] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    last: Reply | None = None

    @property
    def status(self) -> str:
        """PostHog's newest word for it."""
        return self.statuses[-1] if self.statuses else "Starting"

    @property
    def ended(self) -> bool:
        """Whether nothing happens any more."""
        return self.status in ENDED


@dataclass
class Content:
    """What a completed run delivered."""

    lines: list[dict[str, Any]]
    members: int


class Exports:
    """Starts, polls and cancels runs. `patience` is how many seconds a run may take."""

    def __init__(self, client: Client, patience: float) -> None:
        self.client, self.patience = client, patience
        self.open: dict[str, Run] = {}

    def start(self, model: str, begin: str, end: str, megabytes: int = 128, include: list[str] | None = None) -> Reply:
        """Sends the request to start a run; what was started is known from then on."""
        body: dict[str, Any] = {"model": model, "data_interval_start": begin, "data_interval_end": end}
        body["file"] = {"format": "JSONLines", "compression": "gzip", "max_size_mb": megabytes}
        if include:
            body["include"] = include
        reply = self.client.ask("POST", self.client.at(PATH), body)
        if reply.get("id"):
            self.open[reply.get("id")] = Run(reply.get("id"))
        return reply

    def run(self, reply: Reply) -> Run:
        """The run of a response to `start`."""
        if not reply.get("id"):
            raise Unanswered(f"no run was started ({reply.status} {reply.get('code') or ''})")
        return self.open[reply.get("id")]

    def poll(self, run: Run) -> Run:
        """Asks how a run stands."""
        reply = self.client.ask("GET", self.client.at(f"{PATH}{run.id}/"))
        status = reply.get("status")
        if reply.status != 200 or not isinstance(status, str):
            raise Unanswered(f"a run cannot be polled ({reply.status})")
        run.last = reply
        if run.status != status or not run.statuses:
            run.statuses.append(status)
        if status == "Completed":
            run.files.append(len(reply.get("files") or []))
        return run

    def finish(self, runs: list[Run]) -> None:
        """Polls every second until all have ended or patience has."""
        until = time.monotonic() + self.patience
        begun = time.monotonic()
        while not all(run.ended for run in runs) and time.monotonic() < until:
            for run in runs:
                if not run.ended:
                    self.poll(run)
            # A client has 480 requests a minute and 4,800 an hour.
            self.client.wait(1 if time.monotonic() - begun < 300 else 5)

    def content(self, run: Run) -> Content:
        """Downloads all files of a completed run."""
        if run.status != "Completed" or run.last is None:
            raise Unanswered(f"the run was still {run.status} after {self.patience:.0f} s")
        lines: list[dict[str, Any]] = []
        members = 0
        for number in range(run.files[-1]):
            reply = self.client.ask("GET", self.client.at(f"{PATH}{run.id}/download/{number}/"))
            if reply.status != 302:
                raise Unanswered(f"a file is not available ({reply.status})")
            some, parts = unpack(self.client.file(reply).raw)
            lines, members = lines + some, members + parts
        return Content(lines, members)

    def cancel(self, run: Run) -> Reply:
        """Cancels a run."""
        return self.client.ask("POST", self.client.at(f"{PATH}{run.id}/cancel/"))

    def close(self) -> list[str]:
        """Cancels whatever has not ended; returns the ids of runs for which that failed."""
        left = []
        self.client.closing = True
        for run in self.open.values():
            try:
                if not run.ended and not self.poll(run).ended:
                    reply = self.cancel(run)
                    # PostHog may know that a run is done before it shows it.
                    done = str(reply.get("detail")).startswith("Cannot cancel a run")
                    if reply.status >= 400 and not done and not self.poll(run).ended:
                        left.append(run.id)
            except (CannotRun, Unanswered):
                left.append(run.id)
        return left
