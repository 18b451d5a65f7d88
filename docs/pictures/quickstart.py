"""Records `make quickstart` on a terminal and draws what it shows as docs/pictures/quickstart.svg.

`make pictures` calls it. Needs `script` (util-linux) and rich, which
integration_tests/python/requirements.txt pins.
"""

import pathlib
import re
import subprocess

from rich.console import Console
from rich.text import Text

PICTURE = pathlib.Path(__file__).with_name("quickstart.svg")
ROOT = PICTURE.parent.parent.parent
COMMAND = "make --no-print-directory quickstart"
WIDTH = 104
# The rest shows one record and the state file; the picture is to be taken in at a glance.
LAST = "What arrived, and what is kept"
# Fonts of the reader's system, so that the picture asks no other host for one.
FORMAT = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="make quickstart">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def record():
    """What a terminal has shown in the end: of lines that are drawn again and again, the last state."""
    shell = f"stty cols {WIDTH}; {COMMAND}"
    done = subprocess.run(["script", "-qefc", shell, "/dev/null"], cwd=ROOT, capture_output=True, check=True)
    # Bytes, because text would take every carriage return for the end of a line.
    lines = done.stdout.decode().replace("\r\n", "\n").split("\n")
    lines = [re.split("\r|\x1b\\[2K", line.rstrip("\r"))[-1].rstrip() for line in lines]
    quickstart = next(number for number, line in enumerate(lines) if "on this machine" in line)
    end = next(number for number, line in enumerate(lines) if LAST in line)
    return lines[quickstart:end]


def main():
    console = Console(record=True, width=WIDTH, file=open("/dev/null", "w"), force_terminal=True)
    console.print(Text(f"$ {COMMAND.replace(' --no-print-directory', '')}", style="green"))
    for line in record():
        console.print(Text.from_ansi(line))
    PICTURE.write_text(console.export_svg(title="", code_format=FORMAT, unique_id="quickstart"))


if __name__ == "__main__":
    main()
