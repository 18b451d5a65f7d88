"""Draws docs/pictures/migrating.svg: the events of each day, in PostHog and in two tables.

`make pictures` calls it with the figures that integration_tests/python/migrating.py has written.
"""

import json
import pathlib
import sys

PICTURE = pathlib.Path(__file__).with_name("migrating.svg")
WIDTH, HEIGHT, LEFT, GAP = 960, 150, 20, 60
# Days shown: whole ones, and none of the future that clocks that are wrong have made up.
SHOWN = slice(-31, -2)
TABLES = {"airbyte": ("Table filled by Airbyte's source-posthog 1.1.28", "#B2182B"), "here": ("The same table after the walk", "#2166AC")}


def bar(place, width, height, bottom, colour):
    return f'<rect x="{place:.1f}" y="{bottom - height:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def panel(figures, table, top):
    """Bars of one table in front of those of PostHog."""
    title, colour = TABLES[table]
    days = sorted(figures)[SHOWN]
    total, had = (sum(figures[day][key] for day in days) for key in ("posthog", table))
    # The busiest day is cut, or all others would be too small to see.
    most = sorted(figures[day]["posthog"] for day in days)[-2]
    step, bottom = (WIDTH - 2 * LEFT) / len(days), top + HEIGHT
    yield f'<text x="{LEFT}" y="{top - 10}" font-size="14" font-weight="bold">{title}: {had:,} of {total:,} events</text>'
    for number, day in enumerate(days):
        for key, shade in (("posthog", "#D8D8D8"), (table, colour)):
            yield bar(LEFT + number * step, step * 0.8, min(figures[day][key] / most, 1) * (HEIGHT - 20), bottom, shade)
        if figures[day]["posthog"] > most:
            number_of = f"{figures[day][table]:,} of {figures[day]['posthog']:,}"
            yield f'<text x="{LEFT + (number + 0.4) * step:.1f}" y="{top + 16}" font-size="11" text-anchor="middle">{number_of}</text>'
    yield f'<text x="{LEFT}" y="{bottom + 15}" font-size="11">{days[0]}</text>'
    yield f'<text x="{WIDTH - LEFT}" y="{bottom + 15}" font-size="11" text-anchor="end">{days[-1]}</text>'


def main():
    figures = json.loads(pathlib.Path(sys.argv[1]).read_text())
    bottom = 2 * (HEIGHT + GAP) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" role="img" aria-label="Events of each day" font-family="sans-serif" fill="#282828">',
        f'<rect width="{WIDTH}" height="{bottom}" fill="#FFFFFF"/>',
        f'<text x="{WIDTH - LEFT}" y="24" font-size="12" text-anchor="end">pale: events of the day in PostHog</text>',
    ]
    for number, table in enumerate(TABLES):
        lines += panel(figures, table, 34 + number * (HEIGHT + GAP))
    PICTURE.write_text("\n".join([*lines, "</svg>", ""]))


if __name__ == "__main__":
    main()
