//! The figures as a picture.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::results::{Results, Row, Way, float};
use crate::targets::{MEBIBYTE, MOST_MEMORY, most_ratio};

const WIDTH: u32 = 960;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const PROGRAM: RGBColor = RGBColor(33, 102, 172);
const OTHER: RGBColor = RGBColor(170, 170, 170);
const LIMIT: RGBColor = RGBColor(178, 24, 43);
/// Where bars begin, and how long the longest is, in pixels.
const BEGIN: i32 = 270;
const LONGEST: i32 = 560;
const STEP: i32 = 26;
const GAP: i32 = 18;
const MARGIN: i32 = 20;

struct Bar {
    label: String,
    value: f64,
    text: String,
    colour: RGBColor,
    limit: Option<f64>,
}

/// Draws the picture and returns it as SVG.
///
/// # Errors
/// When it cannot be drawn.
pub fn draw(results: &Results) -> anyhow::Result<String> {
    let panels = panels(results);
    let steps: usize = panels.iter().map(|(_, bars)| bars.len() + 1).sum();
    let height = 3 * MARGIN + i32::try_from(steps)? * STEP + i32::try_from(panels.len())? * GAP;
    let mut picture = String::new();
    {
        let area = SVGBackend::with_string(&mut picture, (WIDTH, u32::try_from(height)?)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut top = MARGIN;
        for (title, bars) in &panels {
            top = panel(&area, top, title, bars)?;
        }
        let machine = &results.machine;
        let below =
            format!("{}, {} cores, {}, {} build", machine.processor, machine.cores, machine.date, machine.build);
        area.draw(&Text::new(below, (MARGIN, top + 4), (FONT, 13).into_font().color(&OTHER)))?;
        area.present()?;
    }
    Ok(picture)
}

fn panels(results: &Results) -> Vec<(String, Vec<Bar>)> {
    let most = results.comparisons.iter().map(|comparison| comparison.program.volume.events).max().unwrap_or_default();
    let reads = || results.comparisons.iter().filter(|comparison| comparison.way != Way::Write);
    let label = |row: &Row| format!("{}, {}", row.subject, short(row.volume.events));
    let ratios = reads().filter_map(|comparison| {
        let ratio = comparison.program.ratio?.median;
        let (label, limit) = (label(&comparison.program), most_ratio(comparison.way));
        Some(Bar { label, value: ratio, text: format!("{ratio:.2}"), colour: PROGRAM, limit })
    });
    let memory = reads().map(|comparison| {
        let value = float(comparison.program.peak) / float(MEBIBYTE);
        let limit = Some(float(MOST_MEMORY) / float(MEBIBYTE));
        Bar { label: label(&comparison.program), value, text: format!("{value:.1} MiB"), colour: PROGRAM, limit }
    });
    let large = reads().filter(|comparison| comparison.program.volume.events == most);
    let speed = large.flat_map(|comparison| {
        [(&comparison.floor, OTHER), (&comparison.program, PROGRAM)].map(|(row, colour)| {
            let value = float(row.volume.events) / row.wall.median;
            Bar { label: row.subject.clone(), value, text: format!("{:.0} k", value / 1e3), colour, limit: None }
        })
    });
    let mut panels = vec![
        ("Wall time, as a multiple of the floor (line: target)".to_owned(), ratios.collect()),
        ("Peak resident memory (line: target)".to_owned(), memory.collect()),
        (format!("Events per second, {} events", short(most)), speed.collect()),
    ];
    if let Some(airbyte) = &results.airbyte {
        let bar = |label: &str, value: f64, colour| {
            let text = format!("{value:.1} s");
            Bar { label: label.to_owned(), value, text, colour, limit: None }
        };
        let bars = vec![
            bar("Airbyte's source-posthog", airbyte.theirs_per_million(), OTHER),
            bar("this connector", airbyte.ours_per_million(), PROGRAM),
        ];
        panels.push(("Processor time for a million events".to_owned(), bars));
    }
    panels
}

fn short(events: u64) -> String {
    match events {
        _ if events >= 1_000_000 => format!("{} million", float(events) / 1e6),
        _ if events >= 1_000 => format!("{} thousand", float(events) / 1e3),
        _ => events.to_string(),
    }
}

/// Draws a panel and returns where the next one begins.
fn panel<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    top: i32,
    title: &str,
    bars: &[Bar],
) -> anyhow::Result<i32>
where
    B::ErrorType: 'static,
{
    let font = |size: i32| (FONT, size).into_font().color(&INK);
    area.draw(&Text::new(title.to_owned(), (MARGIN, top), (FONT, 17).into_font().style(FontStyle::Bold).color(&INK)))?;
    let scale = bars.iter().map(|bar| bar.limit.unwrap_or_default().max(bar.value)).fold(f64::MIN_POSITIVE, f64::max);
    let mut y = top + STEP;
    for bar in bars {
        let left = font(13).pos(Pos::new(HPos::Right, VPos::Center));
        let right = font(13).pos(Pos::new(HPos::Left, VPos::Center));
        let middle = y + STEP / 2;
        let end = BEGIN + pixels(bar.value / scale);
        area.draw(&Text::new(bar.label.clone(), (BEGIN - 8, middle), left))?;
        area.draw(&Rectangle::new([(BEGIN, y + 4), (end, y + STEP - 4)], bar.colour.filled()))?;
        let mut text = end;
        if let Some(limit) = bar.limit {
            let x = BEGIN + pixels(limit / scale);
            area.draw(&PathElement::new(vec![(x, y), (x, y + STEP)], LIMIT.stroke_width(2)))?;
            // Not across the line.
            text = if x >= end && x - end < 70 { x } else { end };
        }
        area.draw(&Text::new(bar.text.clone(), (text + 6, middle), right))?;
        y += STEP;
    }
    Ok(y + GAP)
}

#[expect(clippy::cast_possible_truncation, reason = "a part of the picture's width")]
fn pixels(part: f64) -> i32 {
    (part.clamp(0.0, 1.0) * f64::from(LONGEST)).round() as i32
}
