"""The Python of docs/pyairbyte.md runs as it stands there, against the stand-in."""

import os
import re
import subprocess
import sys

from support import PROGRAMS, ROOT, posthog

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_pyairbyte_page(tmp_path):
    blocks = BLOCK.findall((ROOT / "docs/pyairbyte.md").read_text())
    assert len(blocks) == 2
    with posthog("--events", "300") as sandbox:
        script = "".join(blocks).replace("https://us.posthog.com", sandbox.url).replace("2026-11-01T", "2020-01-01T")
        assert sandbox.url in script and "2020-01-01T" in script
        environment = {
            **os.environ,
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "POSTHOG_API_KEY": sandbox.api_key,
            "DO_NOT_TRACK": "1",
            "AIRBYTE_OFFLINE_MODE": "1",
        }
        for _ in range(2):
            done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            # The stand-in has events that arrive in a while, and some that come twice.
            held = sandbox.select("uuid, event, created_at < now() - INTERVAL 1 MINUTE", "events")
            stored = {name: len({key for key, event, _ in held if event == name}) for _, name, _ in held}
            arrived = {name: len({key for key, event, past in held if event == name and past}) for _, name, _ in held}
            printed = re.findall(r"^\('(.+)', (\d+)\)$", done.stdout, re.MULTILINE)
            assert len(printed) == 5, done.stdout
            for name, total in printed:
                assert arrived[name] <= int(total) <= stored[name], (name, total, arrived[name], stored[name])
    assert (tmp_path / ".cache/posthog").is_dir()
