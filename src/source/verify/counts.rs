//! The figures of a warehouse's table, from a CSV file as the tools of warehouses print it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Error;
use crate::input_file;
use crate::records::Fingerprint;
use crate::time::Timestamp;

/// What a table has of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TableDay {
    /// Different events, and their checksum if the day has one.
    pub(super) events: u64,
    pub(super) checksum: Option<u64>,
    /// Rows, repeats included.
    pub(super) rows: u64,
}

impl TableDay {
    /// Whether this is what PostHog has. As many events without a checksum are no proof.
    pub(super) fn agrees(self, posthog: Fingerprint) -> bool {
        self.events == posthog.count && self.checksum.map_or(self.events == 0, |checksum| checksum == posthog.checksum)
    }
}

/// What a table has of one project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TableCounts {
    /// By number of the day since the epoch.
    pub(super) days: BTreeMap<i64, TableDay>,
    /// When PostHog received the newest row of the table, if the file says so.
    pub(super) newest: Option<Timestamp>,
}

/// Columns of the file.
struct Columns {
    project: usize,
    day: usize,
    events: usize,
    checksum: usize,
    rows: usize,
    newest: Option<usize>,
}

/// Reads a file with the result of the query that `--sql` prints.
///
/// # Errors
/// A config error that names the column or the line.
pub(super) fn from_file(path: &Path) -> Result<BTreeMap<u64, TableCounts>, Error> {
    let unreadable = |problem: &dyn std::fmt::Display| {
        Error::config(format!("the file of counts {} cannot be read: {problem}", path.display()))
    };
    let bytes = input_file::read(path).map_err(|error| unreadable(&error))?;
    let text = decoded(bytes).ok_or_else(|| unreadable(&"it is not UTF-8; save it as CSV in UTF-8"))?;
    parse(text.trim_start_matches('\u{feff}'))
}

/// The text of a file; PowerShell writes UTF-16.
fn decoded(bytes: Vec<u8>) -> Option<String> {
    let units = |unit: fn([u8; 2]) -> u16| -> Vec<u16> {
        bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(unit)).collect()
    };
    match bytes.get(..2) {
        Some([0xff, 0xfe]) => String::from_utf16(&units(u16::from_le_bytes)).ok(),
        Some([0xfe, 0xff]) => String::from_utf16(&units(u16::from_be_bytes)).ok(),
        _ => String::from_utf8(bytes).ok(),
    }
}

fn parse(text: &str) -> Result<BTreeMap<u64, TableCounts>, Error> {
    let header = text.lines().next().unwrap_or_default();
    let often = |delimiter: &u8| header.bytes().filter(|byte| byte == delimiter).count();
    let delimiter = [b',', b';', b'\t', b'|'].into_iter().max_by_key(often).unwrap_or(b',');
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
    let columns = columns(reader.headers().map_err(|error| unreadable(&error))?)?;
    let mut projects: BTreeMap<u64, TableCounts> = BTreeMap::new();
    for (record, number) in reader.records().zip(2..) {
        let record = record.map_err(|error| unreadable(&error))?;
        let wrong = |column: &str| {
            Error::config(format!(
                "line {number} of the file of counts has no usable `{column}`; run the query that `--sql` prints, and save all digits of its numbers"
            ))
        };
        let cell = |column: usize| record.get(column).unwrap_or_default();
        let optional = |column: Option<usize>| column.map(cell).filter(|text| !is_null(text));
        // psql ends its tables with `(3 rows)`.
        if record.len() == 1 {
            continue;
        }
        let project = whole(cell(columns.project)).and_then(|id| u64::try_from(id).ok());
        let project = projects.entry(project.ok_or_else(|| wrong("project_id"))?).or_default();
        let day = cell(columns.day).get(..10).and_then(Timestamp::parse).ok_or_else(|| wrong("day"))?.day();
        let count = |text: &str| whole(text).and_then(|count| u64::try_from(count).ok());
        let events = count(cell(columns.events)).ok_or_else(|| wrong("events"))?;
        let checksum =
            optional(Some(columns.checksum)).map(|text| whole(text).map(modulo).ok_or_else(|| wrong("checksum")));
        let rows = count(cell(columns.rows)).ok_or_else(|| wrong("row_count"))?;
        let newest = optional(columns.newest)
            .map(|text| whole(text).and_then(|micros| i64::try_from(micros).ok()).ok_or_else(|| wrong("newest")))
            .transpose()?;
        project.newest = project.newest.max(newest.map(Timestamp::from_micros));
        let found = TableDay { events, checksum: checksum.transpose()?, rows };
        if project.days.insert(day, found).is_some() {
            return Err(Error::config(format!(
                "line {number} of the file of counts is about a project and a day that another line is about; save the result of one query"
            )));
        }
    }
    Ok(projects)
}

fn columns(headers: &csv::StringRecord) -> Result<Columns, Error> {
    let place = |name: &str| headers.iter().position(|header| header.eq_ignore_ascii_case(name));
    let needed = |name: &str| {
        place(name).ok_or_else(|| {
            Error::config(format!(
                "the file of counts has no column `{name}`; save the result of the query that `--sql` prints as CSV, with the names of its columns in the first line"
            ))
        })
    };
    Ok(Columns {
        project: needed("project_id")?,
        day: needed("day")?,
        events: needed("events")?,
        checksum: needed("checksum")?,
        rows: needed("row_count")?,
        newest: place("newest"),
    })
}

fn unreadable(error: &csv::Error) -> Error {
    Error::config(format!("the file of counts is not CSV: {error}"))
}

fn is_null(text: &str) -> bool {
    text.is_empty() || text.eq_ignore_ascii_case("null") || text == "\\N"
}

/// A whole number; some tools write a decimal point and zeros.
fn whole(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_plain(whole) && fraction.bytes().all(|byte| byte == b'0')).then(|| whole.parse().ok())?
}

/// Sums in wide numbers, as PostHog adds up.
fn modulo(sum: u128) -> u64 {
    u64::try_from(sum % (1 << 64)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> i64 {
        Timestamp::parse(text).unwrap().day()
    }

    #[test]
    fn files_of_different_tools_are_read() {
        let expected = TableDay { events: 10, checksum: Some(18_446_744_073_709_551_615), rows: 12 };
        for text in [
            "project_id,day,row_count,events,checksum,newest\n1001,2026-11-24,12,10,18446744073709551615,1795514400000000\n",
            "\u{feff}\"PROJECT_ID\",\"DAY\",\"ROW_COUNT\",\"EVENTS\",\"CHECKSUM\",\"NEWEST\"\r\n\"1001\",\"2026-11-24\",\"12\",\"10\",\"18446744073709551615\",\"1795514400000000.000\"\r\n",
            "project_id;day;row_count;events;checksum;newest\n1001;2026-11-24 00:00:00;12.0;10;36893488147419103231;1795514400000000\n",
            " project_id | day | row_count | events | checksum | newest\n 1001 | 2026-11-24 | 12 | 10 | 18446744073709551615 | 1795514400000000\n(1 row)\n",
        ] {
            let found = parse(text.trim_start_matches('\u{feff}')).unwrap();
            assert_eq!(found[&1001].days, [(day("2026-11-24"), expected)].into(), "{text}");
            assert_eq!(found[&1001].newest, Timestamp::parse("2026-11-24T10:00:00Z"), "{text}");
        }
    }

    #[test]
    fn files_of_powershell_are_read() {
        let text = "\u{feff}project_id,day\r\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [little, big, text.into()] {
            assert_eq!(decoded(bytes).as_deref(), Some(text));
        }
        assert_eq!(decoded(vec![b'a', 0xff]), None);
    }

    #[test]
    fn a_day_without_a_checksum_does_not_agree() {
        for null in ["", "NULL", "null", "\\N"] {
            let text = format!("project_id,day,row_count,events,checksum,newest\n1,2026-11-24,3,3,{null},{null}\n");
            let found = parse(&text).unwrap();
            let expected = TableDay { events: 3, checksum: None, rows: 3 };
            assert_eq!((found[&1].days[&day("2026-11-24")], found[&1].newest), (expected, None));
            for posthog in [(3, 99), (3, 0), (4, 99)] {
                assert!(!expected.agrees(Fingerprint::new(posthog.0, posthog.1)), "{posthog:?}");
            }
        }
        let empty = TableDay { events: 0, checksum: None, rows: 0 };
        assert!(empty.agrees(Fingerprint::new(0, 0)), "there is nothing to add up");
    }

    #[test]
    fn what_is_wrong_is_named() {
        const HEADER: &str = "project_id,day,row_count,events,checksum";
        for (text, expected) in [
            (String::new(), "no column `project_id`"),
            ("project_id,day\n".to_owned(), "no column `events`"),
            ("project_id,day,events,row_count\n1,2026-11-24,1,1\n".to_owned(), "no column `checksum`"),
            ("project_id,day,events,checksum\n1,2026-11-24,1,1\n".to_owned(), "no column `row_count`"),
            (format!("{HEADER}\nx,2026-11-24,1,1,1\n"), "line 2 of the file of counts has no usable `project_id`"),
            (
                format!("{HEADER}\n1,2026-11-24,1,1,1\n1,today,1,1,1\n"),
                "line 3 of the file of counts has no usable `day`",
            ),
            (format!("{HEADER}\n1,2026-11-24,1,1,1.8E19\n"), "no usable `checksum`"),
            (format!("{HEADER}\n1,2026-11-24,,1,1\n"), "no usable `row_count`"),
            (format!("{HEADER}\n1,2026-11-24,1,1,1\n1,2026-11-24,1,1,1\n"), "another line is about"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
        }
    }
}
