//! The script of a life: a world of rows and the steps that follow, all of it made from a seed.
//!
//! A script holds every value that matters, so a part of a script is a script as well: that is how a life
//! that fails is made shorter.

use std::fmt;

use chrono::Datelike;
use posthog_sandbox::posthog::{Action, Event};
use source_posthog::time::Timestamp;
use uuid::Uuid;

use crate::support::world::silent_faults;

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
/// The server's clock at the first sync, up to one day later.
const BEGIN: &str = "2027-01-10T00:00:00Z";
const NAMES: [&str; 3] = ["a", "b", "c"];
const PEOPLE: [&str; 3] = ["ada", "bob", "eve"];
/// Pages of a read are so few that it stays below the limit of queries in a minute.
const MOST_PAGES: usize = 40;

/// `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    fn below(&mut self, limit: i64) -> i64 {
        i64::try_from(self.next() >> 1).unwrap() % limit.max(1)
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(i64::try_from(length).unwrap())).unwrap()
    }

    fn chance(&mut self, percent: i64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())].clone()
    }
}

pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// A row of the events table.
#[derive(Clone, PartialEq)]
pub(super) struct Row {
    uuid: Uuid,
    name: &'static str,
    who: &'static str,
    at: i64,
    created: i64,
    visible: Option<i64>,
}

impl Row {
    pub(super) fn event(&self) -> Event {
        Event {
            uuid: self.uuid,
            event: self.name.to_owned(),
            distinct_id: self.who.to_owned(),
            properties: format!(r#"{{"name":"{}","uuid":"{}","who":"{}"}}"#, self.name, self.uuid, self.who),
            timestamp: self.at,
            created_at: self.created,
            person_id: Uuid::from_u128(self.who.len() as u128 * 1_000 + u128::from(self.who.as_bytes()[0])),
            elements_chain: format!("a.{}:nth-child=\"1\"", self.name),
            visible_at: self.visible,
            ..Event::default()
        }
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |micros: i64| Timestamp::from_micros(micros).to_string();
        write!(
            formatter,
            "{} {} {} at {} created {}",
            self.uuid,
            self.name,
            self.who,
            time(self.at),
            time(self.created)
        )?;
        self.visible.map_or(Ok(()), |visible| write!(formatter, " visible {}", time(visible)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Method {
    Query,
    Export,
    Auto,
}

/// What the configuration of a sync says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) method: Method,
    pub(super) export_above: u32,
    pub(super) page_size: usize,
    pub(super) concurrency: u32,
    pub(super) settle_minutes: i64,
    pub(super) start: i64,
    pub(super) end: Option<i64>,
    pub(super) include: Vec<&'static str>,
    pub(super) exclude: Vec<&'static str>,
    /// Days to read once more, such as `2026-11-01/2026-11-05`.
    pub(super) reread: Vec<String>,
}

impl Settings {
    pub(super) fn asks_for(&self, event: &Event) -> bool {
        let name = event.event.as_str();
        let in_dates = self.start <= event.timestamp && self.end.is_none_or(|end| event.timestamp < end);
        let is_named = self.include.is_empty() || self.include.contains(&name);
        in_dates && is_named && !self.exclude.contains(&name)
    }

    /// Whether an event may come: it is asked for, or lies in a day or folded month that a date cuts. Dates that
    /// have become narrower leave these whole.
    pub(super) fn allows(&self, event: &Event) -> bool {
        let month = |micros: i64| {
            let date = source_posthog::time::Timestamp::from_micros(micros).date();
            (date.year(), date.month())
        };
        let is_cut =
            [Some(self.start), self.end].into_iter().flatten().any(|date| month(date) == month(event.timestamp));
        let all_dates = Self { start: i64::MIN, end: None, ..self.clone() };
        if is_cut { all_dates.asks_for(event) } else { self.asks_for(event) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Incremental,
    /// A full refresh, which is given the state. The next sync gets its state if that is kept; otherwise
    /// it was one of another connection.
    Full {
        kept: bool,
    },
}

/// An answer that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trouble {
    /// Which queries, or files if there is none.
    pub(super) sql: Option<&'static str>,
    pub(super) action: Action,
    pub(super) times: u64,
}

/// A run of the program.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sync {
    pub(super) settings: Settings,
    pub(super) mode: Mode,
    /// After so many lines it is killed.
    pub(super) killed_after: Option<usize>,
    pub(super) trouble: Option<Trouble>,
    /// Rows that become visible when it asks its query of this number.
    pub(super) appearing: Vec<(usize, Row)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Arrive(Vec<Row>),
    /// The server's clock goes on, in seconds.
    Wait(i64),
    /// So many of a hundred events are deleted, which ones depends on the salt.
    Delete {
        percent: u64,
        salt: u64,
    },
    /// Duplicates of a row become one.
    Merge,
    Sync(Box<Sync>),
}

/// What happens to a project, and when it is read.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) begin: i64,
    /// Nothing happens that could let an event come twice.
    pub(super) is_quiet: bool,
    pub(super) steps: Vec<Step>,
}

/// What may happen in a life.
#[expect(clippy::struct_excessive_bools, reason = "each may happen with any other")]
struct Hazards {
    late: bool,
    duplicates: bool,
    deletions: bool,
    kills: bool,
    faults: bool,
    full: bool,
    dates: bool,
    names: bool,
    rereads: bool,
    methods: bool,
    appearing: bool,
    /// Events that PostHog received long after they happened, or that lie in its future. Exports leave
    /// them out, and what shares a cell with them is then read again.
    far: bool,
    /// Events that share a uuid. Figures tell them apart by their number only, so one that appears when two
    /// copies of another are merged, or next to copies that two exports have brought, can go unnoticed.
    shared: bool,
}

struct Author {
    random: Random,
    is_quiet: bool,
    hazards: Hazards,
    begin: i64,
    clock: i64,
    rows: Vec<Row>,
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let begin = Timestamp::parse(BEGIN).unwrap().micros() + random.below(DAY);
        let is_quiet = random.chance(20);
        let far = !is_quiet || random.chance(60);
        let mut may = |percent| !is_quiet && random.chance(percent);
        let duplicates = may(50);
        let shared = !duplicates || may(30);
        let hazards = Hazards {
            late: may(50) && !(duplicates && shared),
            duplicates,
            shared,
            deletions: may(40),
            kills: may(50),
            faults: may(35),
            full: may(30),
            dates: may(35),
            names: may(35),
            methods: may(40),
            appearing: may(15),
            rereads: may(20),
            far,
        };
        let mut author = Author { random, is_quiet, hazards, begin, clock: begin, rows: Vec::new() };
        let steps = author.write();
        Self { begin, is_quiet, steps }
    }
}

impl Author {
    fn write(&mut self) -> Vec<Step> {
        let old = self.random.pick(&[10, 25, 60, 150, 250]);
        let mut first = self.arrivals(old, self.begin - 120 * DAY, 120 * DAY);
        let recent = self.random.below(15);
        first.extend(self.arrivals(recent, self.begin - 20 * MINUTE, 20 * MINUTE));
        let mut steps = vec![Step::Arrive(first)];
        let mut settings = self.settings();
        for number in 0..3 + self.random.below(4) {
            if number > 0 {
                self.pass_time(&mut steps);
                self.change(&mut settings);
            }
            let sync = self.sync(settings.clone(), number > 0);
            steps.push(Step::Sync(Box::new(sync)));
        }
        // Nothing happens any more.
        steps.push(Step::Wait(12 * DAY / SECOND));
        let last = Sync { settings, mode: Mode::Incremental, killed_after: None, trouble: None, appearing: Vec::new() };
        steps.push(Step::Sync(Box::new(last)));
        steps
    }

    fn arrivals(&mut self, count: i64, from: i64, spread: i64) -> Vec<Row> {
        let known = self.rows.len();
        for _ in 0..count {
            let created = from + self.random.below(spread);
            let row = self.row(created);
            self.rows.push(row);
        }
        self.rows[known..].to_vec()
    }

    fn row(&mut self, created: i64) -> Row {
        let random = &mut self.random;
        let ahead = random.below(20 * DAY);
        let at = match random.below(100) {
            _ if !self.hazards.far => created - random.below(HOUR),
            0..3 => -random.below(15 * YEAR),
            3..5 => created + random.pick(&[2 * YEAR, 130 * YEAR]) + random.below(DAY),
            5..10 => created + random.pick(&[ahead, ahead / 480]),
            10..30 => created - random.pick(&[1, 2, 5, 8, 9, 40, 75, 110]) * DAY - random.below(DAY),
            _ => created - random.below(HOUR),
        };
        let uuid = Uuid::from_u128(u128::from(random.next()) << 64 | u128::from(random.next()));
        let (name, who) = (random.pick(&NAMES), random.pick(&PEOPLE));
        let mut row = Row { uuid, name, who, at, created, visible: None };
        if let Some(other) = (!self.rows.is_empty()).then(|| random.pick(&self.rows)) {
            match random.below(100) {
                // Another event with this uuid, perhaps at the same time.
                0..5 if self.hazards.shared => {
                    let other_name = if other.name == "a" { "b" } else { "a" };
                    row = Row {
                        uuid: other.uuid,
                        name: other_name,
                        at: if self.hazards.far { random.pick(&[at, other.at]) } else { at },
                        ..row
                    };
                }
                5..10 if self.hazards.shared => {
                    let other_who = if other.who == "ada" { "bob" } else { "ada" };
                    row = Row {
                        uuid: other.uuid,
                        name: other.name,
                        who: other_who,
                        at: if self.hazards.far { other.at } else { at },
                        ..row
                    };
                }
                10..18 if self.hazards.far => row.at = other.at,
                18..30 if self.hazards.duplicates => {
                    let created = other.created + random.pick(&[0, 1, MINUTE, HOUR, 2 * DAY, 9 * DAY]);
                    row = Row { created, visible: Some(created), ..other };
                }
                _ => {}
            }
        }
        let is_copy = |other: &Row| (other.uuid, other.name, other.who) == (row.uuid, row.name, row.who);
        if !self.hazards.duplicates && self.rows.iter().any(is_copy) {
            row.uuid = uuid;
        }
        if self.hazards.late && random.chance(20) {
            let lag = random.pick(&[MINUTE, 5 * MINUTE, 20 * MINUTE, 2 * HOUR, 60 * HOUR, 9 * DAY]);
            row.visible = Some(row.created + lag);
        }
        row
    }

    /// What happens between two syncs.
    fn pass_time(&mut self, steps: &mut Vec<Step>) {
        let random = &mut self.random;
        let gap = random.pick(&[5 * MINUTE, 5 * MINUTE, HOUR, 6 * HOUR, 30 * HOUR, 9 * DAY, 70 * DAY]);
        let count = random.pick(&[0, 3, 10, 30]);
        // The server's clock runs on while a sync reads: what came before its bound would be late.
        let arrivals = self.arrivals(count, self.clock + MINUTE, gap - MINUTE);
        self.clock += gap;
        steps.push(Step::Arrive(arrivals));
        steps.push(Step::Wait(gap / SECOND));
        let random = &mut self.random;
        if self.hazards.deletions && random.chance(40) {
            let percent = u64::try_from(random.pick(&[2, 10, 50, 100])).unwrap();
            steps.push(Step::Delete { percent, salt: random.next() });
        }
        if self.hazards.duplicates && random.chance(40) {
            steps.push(Step::Merge);
        }
    }

    fn settings(&mut self) -> Settings {
        let Hazards { far, shared, duplicates, .. } = self.hazards;
        let only_queries = self.is_quiet && far || duplicates && shared;
        let methods: &[_] = if only_queries { &[] } else { &[Method::Query, Method::Export, Method::Auto] };
        let mut settings = Settings {
            method: self.random.pick(&[methods, &[Method::Query]].concat()),
            export_above: self.random.pick(&[0, 50]),
            page_size: self.page_size(),
            concurrency: self.random.pick(&[1, 2, 3]),
            settle_minutes: self.random.pick(&[0, 3]),
            start: 0,
            end: None,
            include: Vec::new(),
            exclude: Vec::new(),
            reread: Vec::new(),
        };
        self.choose_dates(&mut settings);
        if self.random.chance(30) {
            self.choose_names(&mut settings);
        }
        settings
    }

    fn page_size(&mut self) -> usize {
        let least = self.rows.len() / MOST_PAGES + 1;
        self.random.pick(&[3, 4, 7, 10, 25, 50]).max(least)
    }

    fn choose_dates(&mut self, settings: &mut Settings) {
        let random = &mut self.random;
        let somewhen = self.begin - random.pick(&[100, 60, 60, 10, 3]) * DAY + random.below(DAY);
        settings.start = random.pick(&[0, 0, 50 * YEAR, somewhen, somewhen]);
        let later = random.pick(&[self.clock - 5 * DAY, self.clock + 3 * DAY, self.begin - DAY]) + random.below(DAY);
        settings.end = random.chance(25).then_some(later).filter(|end| *end > settings.start);
    }

    fn choose_names(&mut self, settings: &mut Settings) {
        let (include, exclude): (&[_], &[_]) = match self.random.below(6) {
            0 => (&[], &[]),
            1 => (&[], &["a"]),
            2 => (&[], &["b", "c"]),
            3 => (&["a", "b"], &[]),
            4 => (&["b"], &[]),
            _ => (&["b", "c"], &[]),
        };
        (settings.include, settings.exclude) = (include.to_vec(), exclude.to_vec());
    }

    fn change(&mut self, settings: &mut Settings) {
        if self.hazards.dates && self.random.chance(50) {
            self.choose_dates(settings);
        }
        if self.hazards.names && self.random.chance(50) {
            self.choose_names(settings);
        }
        if self.hazards.rereads && self.random.chance(60) {
            let day = self.clock - self.random.pick(&[0, 5, 40, 90, 160]) * DAY - self.random.below(5 * DAY);
            let date = |micros| Timestamp::from_micros(micros).date();
            settings.reread = vec![format!("{}/{}", date(day), date(day + self.random.pick(&[0, 3, 40]) * DAY))];
        }
        settings.page_size = settings.page_size.max(self.rows.len() / MOST_PAGES + 1);
        if self.hazards.methods && self.random.chance(60) {
            let other = self.settings();
            let Settings { start, end, include, exclude, reread, .. } = settings.clone();
            *settings = Settings { start, end, include, exclude, reread, ..other };
        }
    }

    fn sync(&mut self, settings: Settings, may_be_full: bool) -> Sync {
        let random = &mut self.random;
        let full = may_be_full && self.hazards.full && random.chance(30);
        let mode = if full { Mode::Full { kept: random.chance(50) } } else { Mode::Incremental };
        let lines = random.pick(&[5, 20, 60, 300]);
        let killed_after = (self.hazards.kills && random.chance(45)).then(|| 1 + random.index(lines));
        let trouble = (self.hazards.faults && random.chance(45)).then(|| trouble(random));
        let mut appearing = Vec::new();
        // A row that an answer leaves out and one that appears in its cell at the same time look like one that
        // appears later: only the next sync tells them apart.
        if self.hazards.appearing && trouble.is_none() {
            for _ in 0..self.random.below(8) {
                let created = self.clock - self.random.below(HOUR);
                let row = Row { visible: None, ..self.row(created) };
                appearing.push((1 + self.random.index(16), row));
            }
        }
        Sync { settings, mode, killed_after, trouble, appearing }
    }
}

/// What answers do wrong, silently or not.
fn trouble(random: &mut Random) -> Trouble {
    let times = random.pick(&[1, 1, 2, u64::MAX]);
    if random.chance(20) {
        let action = random.pick(&[
            Action::DropRows { rows: 3 },
            Action::CutGzip,
            Action::BrokenLine,
            Action::CorruptByte,
            Action::Truncate { fraction: 0.6 },
        ]);
        return Trouble { sql: None, action, times };
    }
    let sql = ["properties", "AS slice, count", "distinct_count", "GROUP BY hour", r"SELECT count\(\) FROM", ""];
    let nothing = Action::Status { code: 200, body: r#"{"results":[]}"#.into(), headers: Vec::new() };
    let mut actions = silent_faults();
    actions.extend([Action::Truncate { fraction: 0.6 }, Action::status(500), nothing]);
    let action = random.pick(&actions);
    Trouble { sql: Some(random.pick(&sql)), action, times }
}
