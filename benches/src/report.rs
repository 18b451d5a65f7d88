//! The figures as a part of `docs/PERFORMANCE.md`.

use std::fmt::Write as _;

use anyhow::Context;

use crate::results::{Airbyte, Comparison, Pace, Planning, Results, Row, Spread, SyncCosts, float, grouped};
use crate::targets::MEBIBYTE;

const BEGIN: &str = "<!-- benchmark: begin -->";
const END: &str = "<!-- benchmark: end -->";

/// Puts the figures between the markers of a document.
///
/// # Errors
/// When it has no markers.
pub fn insert(document: &str, results: &Results) -> anyhow::Result<String> {
    let (before, rest) = document.split_once(BEGIN).with_context(|| format!("`{BEGIN}` is missing"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("`{END}` is missing"))?;
    Ok(format!("{before}{BEGIN}\n\n{}\n{END}{after}", render(results)?))
}

/// The figures as Markdown.
///
/// # Errors
/// Never; writing to a text is said to be able to fail.
pub fn render(results: &Results) -> anyhow::Result<String> {
    let mut text = String::new();
    let machine = &results.machine;
    writeln!(
        text,
        "Measured on {} by a {} build: {}, {} cores, {} GiB of memory, {}.\n",
        machine.date, machine.build, machine.processor, machine.cores, machine.memory, machine.kernel
    )?;
    writeln!(text, "### Targets\n\n| target | reached | |\n|---|---|---|")?;
    for target in &results.targets {
        writeln!(text, "| {} | {} | {} |", target.aim, target.reached, if target.met { "met" } else { "**missed**" })?;
    }
    writeln!(
        text,
        "\n### Throughput\n\n![Wall time, memory, events per second and processor time](pictures/performance.svg)\n"
    )?;
    writeln!(
        text,
        "Pages of {} rows. Wall time and ratio: median of several runs (least to most). MB/s: JSON before compression; on the wire: what was sent of it.\n",
        grouped(results.page)
    )?;
    for events in volumes(&results.comparisons) {
        writeln!(text, "**{} events**\n", grouped(events))?;
        writeln!(
            text,
            "| | wall time, s | times the floor | events/s | MB/s | on the wire, MB | CPU s per million events | peak memory, MiB |\n|---|---|---|---|---|---|---|---|"
        )?;
        for comparison in results.comparisons.iter().filter(|comparison| comparison.program.volume.events == events) {
            row(&mut text, &format!("**{}**", comparison.program.subject), &comparison.program)?;
            row(&mut text, &comparison.floor.subject, &comparison.floor)?;
            if let Some(ceiling) = &comparison.ceiling {
                row(&mut text, &ceiling.subject, ceiling)?;
            }
        }
        text.push('\n');
    }
    writeln!(
        text,
        "Start-up: `source-posthog spec` takes {} ms from start to end ({} runs).\n",
        scaled(results.spec, 1e3, 1),
        results.spec_runs
    )?;
    if let Some(airbyte) = &results.airbyte {
        processor(&mut text, airbyte)?;
    }
    concurrency(&mut text, results)?;
    planning(&mut text, &results.planning)?;
    text.push('\n');
    costs(&mut text, &results.costs, results.added)?;
    text.push('\n');
    pace(&mut text, &results.pace)?;
    Ok(text)
}

/// How long syncs take at PostHog's pace.
///
/// # Errors
/// Never; see [`render`].
pub fn pace(text: &mut String, syncs: &[Pace]) -> anyhow::Result<()> {
    writeln!(
        text,
        "### At PostHog's pace\n\nA year-old project with 20,000 events, from a sandbox with PostHog's limits that takes 0.4 s for a query, 0.25 s for any other request and 45 s for an export run. *At least*: what the same queries take three at a time, or one export run if there is any.\n"
    )?;
    writeln!(
        text,
        "| | wall time, s | at least, s | times that | queries | other requests | export runs |\n|---|---|---|---|---|---|---|"
    )?;
    for Pace { name, wall, queries, others, runs, bound, .. } in syncs {
        let times = wall / bound.max(f64::MIN_POSITIVE);
        writeln!(text, "| {name} | {wall:.1} | {bound:.1} | {times:.1} | {queries} | {others} | {runs} |")?;
    }
    Ok(())
}

fn volumes(comparisons: &[Comparison]) -> Vec<u64> {
    let mut volumes: Vec<u64> = comparisons.iter().map(|comparison| comparison.program.volume.events).collect();
    volumes.sort_unstable();
    volumes.dedup();
    volumes
}

fn row(text: &mut String, name: &str, row: &Row) -> anyhow::Result<()> {
    let speed = |amount: u64| float(amount) / row.wall.median.max(f64::MIN_POSITIVE);
    writeln!(
        text,
        "| {name} | {} | {} | {} | {} | {} | {:.2} | {:.1} |",
        scaled(row.wall, 1.0, 2),
        row.ratio.map_or_else(|| "1".to_owned(), |ratio| scaled(ratio, 1.0, 2)),
        rounded(speed(row.volume.events)),
        rounded(speed(row.volume.unpacked) / 1e6),
        rounded(float(row.volume.sent) / 1e6),
        row.cpu_per_million(),
        float(row.peak) / float(MEBIBYTE),
    )?;
    Ok(())
}

fn rounded(number: f64) -> String {
    grouped(format!("{number:.0}"))
}

fn scaled(spread: Spread, scale: f64, digits: usize) -> String {
    let Spread { median, least, most } = spread;
    format!("{:.digits$} ({:.digits$} to {:.digits$})", median * scale, least * scale, most * scale)
}

fn processor(text: &mut String, airbyte: &Airbyte) -> anyhow::Result<()> {
    let [few, many] = airbyte.events;
    writeln!(
        text,
        "### Processor time next to Airbyte's connector\n\nThe same events from the same server, read by `airbyte-source-posthog` {} and by this connector (`query`).\n",
        airbyte.version
    )?;
    let [few, many] = [few, many].map(grouped);
    writeln!(text, "| | CPU s, {few} events | CPU s, {many} events | CPU s per million events |\n|---|---|---|---|")?;
    for (name, spreads, million) in [
        ("Airbyte's source-posthog, start-up not counted", airbyte.theirs, airbyte.theirs_per_million()),
        ("**source-posthog**, start-up counted", airbyte.ours, airbyte.ours_per_million()),
    ] {
        let [few, many] = spreads.map(|spread| scaled(spread, 1.0, 2));
        writeln!(text, "| {name} | {few} | {many} | {million:.2} |")?;
    }
    text.push('\n');
    Ok(())
}

fn concurrency(text: &mut String, results: &Results) -> anyhow::Result<()> {
    writeln!(
        text,
        "### Requests at a time\n\n{} windows of one page, from a sandbox that takes {:.0} ms for every query.\n",
        results.windows,
        results.latency * 1e3
    )?;
    writeln!(
        text,
        "| `concurrency` | wall time, s | times as fast as one | most queries at a time |\n|---|---|---|---|"
    )?;
    let one = results.concurrency.first().map(|row| row.wall.median).unwrap_or_default();
    for row in &results.concurrency {
        let (wall, times) = (scaled(row.wall, 1.0, 2), one / row.wall.median.max(f64::MIN_POSITIVE));
        writeln!(text, "| {} | {wall} | {times:.2} | {} |", row.requests, row.peak)?;
    }
    text.push('\n');
    Ok(())
}

fn planning(text: &mut String, planning: &Planning) -> anyhow::Result<()> {
    let Planning { days, days_with_events, heaviest, planned, naive } = planning;
    writeln!(
        text,
        "### Requests for a year\n\nA bursty project: {} events on {days_with_events} of {days} days, {} on the heaviest. Day by day means a request for the events of every UTC day, more when they do not fit on a page, and a request for their count.\n",
        grouped(planned.rows),
        grouped(heaviest)
    )?;
    writeln!(text, "| | requests | MB read by the server |\n|---|---|---|")?;
    for (name, cost) in [("**planned by the histogram**", planned), ("day by day", naive)] {
        writeln!(text, "| {name} | {} | {:.1} |", grouped(cost.requests), float(cost.read) / 1e6)?;
    }
    let saved = |ours: u64, theirs: u64| 100.0 * (1.0 - float(ours) / float(theirs.max(1)));
    writeln!(
        text,
        "| saved | {:.0} % | {:.0} % |",
        saved(planned.requests, naive.requests),
        saved(planned.read, naive.read)
    )?;
    Ok(())
}

/// What syncs cost.
///
/// # Errors
/// Never; see [`render`].
pub fn costs(text: &mut String, costs: &[SyncCosts], added: u64) -> anyhow::Result<()> {
    writeln!(
        text,
        "### What a sync costs\n\nA sync that finds nothing new asks once for figures, however many events there are. It reads those of all days while that is less than 200 MB, otherwise those of the last days, and of all days once a day.\n\nMB: what PostHog reads, estimated with 40 bytes of each row for figures and 1,320 for a page; any part of a day costs all of it. *Planned* is calculated and not run: one query for each page, 1,920 queries an hour. So large a project is read by export unless `query` is chosen.\n"
    )?;
    writeln!(text, "| | queries | MB for figures | MB in all | wall time, s |\n|---|---|---|---|---|")?;
    for SyncCosts { events, days, page, full, first, idle, added: new } in costs {
        let [events, days, page] = [events, days, page].map(grouped);
        let full = rounded(float(*full) / 1e6);
        writeln!(text, "| **{events} events** on {days} days, pages of {page} | | all days: {full} | | |")?;
        let new_events = format!("{} new events", grouped(added));
        for (name, sync) in [("first read", first), ("nothing new", idle), (new_events.as_str(), new)] {
            let name = if sync.planned { format!("{name}, *planned*") } else { name.to_owned() };
            let megabytes = |bytes: u64| grouped(format!("{:.1}", float(bytes) / 1e6));
            let (figures, bytes) = (megabytes(sync.figures), megabytes(sync.bytes));
            let wall = if sync.planned { rounded(sync.wall.median) } else { scaled(sync.wall, 1.0, 2) };
            writeln!(text, "| {name} | {} | {figures} | {bytes} | {wall} |", grouped(sync.queries))?;
        }
    }
    Ok(())
}
