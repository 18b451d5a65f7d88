#!/usr/bin/env python3
"""Send events to a capture host with the official posthog SDK for Python.

    send_events.py --host http://127.0.0.1:8010 --token phc_sandbox --count 500 --seed 1

The same seed gives the same events (uuids aside). They spread backwards from --end (default: now)
over --span-days with a busy day and empty hours; three are 40 days older and one lies three days
after --end. Prints one JSON line with the number and the uuids of the events handed to the SDK,
and exits with 1 if the SDK could not deliver some of them.
"""

import argparse
import json
import random
import sys
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from posthog import Posthog, identify_context, new_context, set_context_session, tag

TEXTS = [
    "Grüße aus Köln – schöne Straße",
    "東京都渋谷区 ラーメン二郎",
    "مرحبا بالعالم",
    "emoji 🦔👩‍👩‍👧‍👦 and a combining e\u0301",
    'she said "no", then\nleft\tthrough the back\\door',
    "line\u2028separator and a null-looking \\u0000",
    '{"looks":"like json"}',
    "",
    "x" * 2000,
]
NUMBERS = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 10**24, 0.1 + 0.2, 1e-7, 1.5e300, -0.0, 42.0]
FLAGS = ["new-checkout", "cta-copy", "dark-mode", "no-such-flag"]
MAX_FLAG_READS = 40  # each is a request to the host


def timestamps(rng, end, span_days):
    """Endless timestamps: three late, one future, then the span; some tie, some lack a fraction."""
    yield from (end - timedelta(days=40, seconds=offset) for offset in (0, 90, 90))
    yield end + timedelta(days=3)
    busy_day = span_days // 3
    previous = end - timedelta(seconds=1)
    while True:
        draw = rng.random()
        if draw < 0.02:
            yield previous
            continue
        day = busy_day if rng.random() < 0.6 else rng.randrange(span_days)
        # Only 15 hours of a day see traffic, so every day has empty hours.
        previous = end - timedelta(days=day, microseconds=rng.randrange(1, 15 * 3600 * 10**6))
        if draw < 0.07:
            previous = previous.replace(microsecond=0)
        elif draw < 0.4:
            previous = previous.replace(microsecond=previous.microsecond // 1000 * 1000)
        yield previous


def order(rng):
    """An order with nested items."""
    items = [
        {
            "sku": f"HW-{rng.randrange(1000):03d}",
            "title": rng.choice(TEXTS[:4]),
            "quantity": rng.randint(1, 5),
            "unit_price": round(rng.uniform(1, 200), 2),
            "options": {"size": rng.choice(["S", "M", "L", None]), "gift": rng.random() < 0.2},
        }
        for _ in range(rng.randint(1, 4))
    ]
    return {
        "order_id": rng.randrange(10**12, 10**15),
        "currency": rng.choice(["EUR", "USD", "JPY"]),
        "total": Decimal(str(round(sum(item["quantity"] * item["unit_price"] for item in items), 2))),
        "items": items,
        "coupon": None,
        "paid": rng.random() < 0.9,
        "placed_at": datetime(2026, 1, rng.randint(1, 28), 12, 30, tzinfo=timezone.utc),
    }


def custom_event(rng):
    """A custom event's name and properties."""
    name = rng.choice(["order_completed", "order_completed", "page_viewed", "note_saved", "reading_taken", "plan_changed"])
    properties = {
        "order_completed": lambda: order(rng),
        "page_viewed": lambda: {"$current_url": f"https://shop.example/p/{rng.randrange(500)}?q=a%20b&lang=de", "path_depth": 2},
        "note_saved": lambda: {"title": rng.choice(TEXTS), "text": rng.choice(TEXTS), "tags": rng.sample(TEXTS[:4], 2)},
        "reading_taken": lambda: {
            "device": uuid.UUID(int=rng.getrandbits(128)),
            "value": rng.choice(NUMBERS),
            "history": rng.sample(NUMBERS, 4),
            "nested": {"a": {"b": {"c": [[], {}, [None, True, [1, [2]]]]}}},
        },
        "plan_changed": lambda: {
            "from": rng.choice(["free", None]),
            "to": "scale",
            "seats": rng.randint(1, 900),
            "trial": False,
            "key with spaces": 1,
            "dotted.key": "x",
            "ключ": "значение",
            "": "empty key",
        },
    }[name]
    return name, properties()


def checkout(rng):
    """Fails in one of several ways, two frames deep."""

    def charge(cents):
        if cents % 3 == 0:
            raise ValueError(f"card declined: \"{cents}\" cents\nplease retry")
        return {}["token"] if cents % 3 == 1 else json.loads("{broken")

    try:
        charge(rng.randrange(100))
    except KeyError as error:
        raise RuntimeError("payment provider unavailable") from error


def act(client, rng, at, state):
    """Make one call to the SDK; most calls hand over exactly one event."""
    person = f"user-{int(rng.paretovariate(0.7)) % 300:03d}"
    draw = rng.random()
    if draw < 0.05:
        client.set(
            distinct_id=person,
            timestamp=at,
            properties={"email": f"{person}@example.com", "name": rng.choice(TEXTS[:4]), "plan": "scale", "age": None},
        )
    elif draw < 0.08:
        client.set_once(distinct_id=person, timestamp=at, properties={"first_seen": at.isoformat(), "referrer": None})
    elif draw < 0.10:
        client.alias(previous_id=f"anon-{rng.getrandbits(64):016x}", distinct_id=person, timestamp=at)
    elif draw < 0.13:
        company = f"company-{rng.randrange(12)}"
        client.group_identify(
            "company", company, {"name": rng.choice(TEXTS[:3]), "employees": rng.randrange(5000)}, timestamp=at, distinct_id=person
        )
    elif draw < 0.17:
        try:
            checkout(rng)
        except Exception as error:
            client.capture_exception(error, distinct_id=person, timestamp=at, properties={"step": "payment"})
    elif draw < 0.21 and state["flag_reads"] < MAX_FLAG_READS:
        state["flag_reads"] += 1
        client.evaluate_flags(person).get_flag(rng.choice(FLAGS))
    elif draw < 0.24:
        client.capture("heartbeat", timestamp=at, properties={"anonymous": True})  # no person: the SDK invents an id
    elif draw < 0.34:
        with new_context(fresh=True, client=client):
            identify_context(person)
            set_context_session(str(uuid.UUID(int=rng.getrandbits(128))))
            tag("request_id", f"req-{rng.randrange(10**6)}")
            client.capture("api_called", timestamp=at, properties={"status": rng.choice([200, 404, 500]), "ms": rng.uniform(0, 900)})
    else:
        name, properties = custom_event(rng)
        groups = {"company": f"company-{rng.randrange(12)}"} if rng.random() < 0.3 else None
        client.capture(name, distinct_id=person, timestamp=at, properties=properties, groups=groups)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--span-days", type=int, default=2)
    parser.add_argument("--end", type=datetime.fromisoformat, help="ISO 8601 with offset, default: now")
    arguments = parser.parse_args()

    rng = random.Random(arguments.seed)
    end = (arguments.end or datetime.now(timezone.utc)).astimezone(timezone.utc)
    clock = timestamps(rng, end, max(1, arguments.span_days))
    state = {"at": end, "flag_reads": 0}
    handed, failures = [], []

    def before_send(message):
        """Count what the SDK takes; flag events have no timestamp argument, so date them here."""
        if message["event"] == "$feature_flag_called":
            message["timestamp"] = state["at"].isoformat()
        handed.append(message["uuid"])
        return message

    client = Posthog(
        arguments.token,
        host=arguments.host,
        gzip=True,
        max_queue_size=arguments.count + 100,
        before_send=before_send,
        on_error=lambda error, batch: failures.append(f"{len(batch)} events: {error!r}"),
    )
    while len(handed) < arguments.count:
        state["at"] = next(clock)
        act(client, rng, state["at"], state)
    client.flush(timeout_seconds=None)
    client.shutdown()
    print(json.dumps({"sdk": "posthog-python", "sent": len(handed), "uuids": handed, "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
