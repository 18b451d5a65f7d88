//! The columns of sessions in the three versions of the table.

use chrono_tz::Tz;

use super::column::Column;
use super::schema::SessionsVersion;
use super::value::Kind;
use crate::posthog::sessions::ATTRIBUTION;

/// The columns of sessions that no other table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionColumn {
    Start,
    End,
    MaxInsertedAt,
    Urls,
    UrlCount,
    /// A text that older versions give as NULL if it is empty.
    Text(SessionText, Empty),
    Pageviews,
    Autocaptures,
    Screens,
    /// Views and clicks, but not counted beyond two.
    CountUpToTwo,
    ChannelType,
    Duration,
    IsBounce,
    LargestPaint,
    /// By the order of [`ATTRIBUTION`].
    Attribution(usize),
    HasAttribution(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionText {
    EntryUrl,
    EntryPath,
    EntryHost,
    EndUrl,
    EndPath,
    EndHost,
    LastExternalClick,
}

/// What becomes of a text without a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Empty {
    Kept,
    Null,
}

/// In every version; `$entry_…` of campaigns and advertisements come after them.
const ALWAYS: [&str; 14] = [
    "session_id",
    "distinct_id",
    "$start_timestamp",
    "$end_timestamp",
    "$urls",
    "$num_uniq_urls",
    "$entry_current_url",
    "$entry_pathname",
    "$entry_hostname",
    "$pageview_count",
    "$autocapture_count",
    "$channel_type",
    "$session_duration",
    "$is_bounce",
];

impl SessionColumn {
    pub(super) fn asterisk(version: SessionsVersion) -> Vec<&'static str> {
        let mut names = ALWAYS.to_vec();
        names.extend(ATTRIBUTION.iter().map(|(column, _)| *column));
        names.extend(match version {
            SessionsVersion::Minimal => ["person_id", "$end_current_url", "$end_pathname", "$screen_count"].as_slice(),
            SessionsVersion::V1 => &["id", "$exit_current_url", "$exit_pathname", "$exit_hostname"],
            SessionsVersion::V2 => &[
                "max_inserted_at",
                "$end_current_url",
                "$end_pathname",
                "$end_hostname",
                "$screen_count",
                "$last_external_click_url",
                "$page_screen_autocapture_count_up_to",
                "$vitals_lcp",
            ],
            SessionsVersion::V3 => &[
                "session_timestamp",
                "person_id",
                "max_inserted_at",
                "$end_current_url",
                "$end_pathname",
                "$end_hostname",
                "$screen_count",
                "$last_external_click_url",
                "$entry_has_gclid",
                "$entry_has_fbclid",
            ],
        });
        // The first version lacks two ids of advertisements that came later.
        names.retain(|name| match version {
            SessionsVersion::Minimal => {
                let campaign = name.starts_with("$entry_utm") || *name == "$entry_referring_domain";
                *name != "$entry_hostname" && (campaign || attribution(name).is_none())
            }
            SessionsVersion::V1 => !matches!(*name, "$entry__kx" | "$entry_irclid"),
            SessionsVersion::V2 | SessionsVersion::V3 => true,
        });
        names
    }

    pub(super) fn find(name: &str, zone: Tz, version: SessionsVersion) -> Option<(Column, Kind, bool)> {
        // Not shown by `*`, and there all the same.
        let hidden: &[&str] = match version {
            SessionsVersion::Minimal => &["id"],
            SessionsVersion::V1 => &["duration", "$end_current_url", "$end_pathname"],
            SessionsVersion::V2 => &["id", "duration", "$exit_current_url", "$exit_pathname"],
            SessionsVersion::V3 => {
                &["id", "duration", "$exit_current_url", "$exit_pathname", "$page_screen_autocapture_count_up_to"]
            }
        };
        if !hidden.contains(&name) && !Self::asterisk(version).contains(&name) {
            return None;
        }
        let empty = match version {
            SessionsVersion::Minimal | SessionsVersion::V3 => Empty::Kept,
            SessionsVersion::V1 | SessionsVersion::V2 => Empty::Null,
        };
        let text = |text| (Self::Text(text, empty), Kind::Text);
        let (column, kind) = match name {
            "session_id" | "id" => return Some((Column::SessionId, Kind::Text, false)),
            "distinct_id" => return Some((Column::DistinctId, Kind::Text, false)),
            "person_id" => return Some((Column::PersonId, Kind::Uuid, false)),
            "$start_timestamp" | "session_timestamp" => (Self::Start, Kind::Time(6, zone)),
            "$end_timestamp" => (Self::End, Kind::Time(6, zone)),
            "max_inserted_at" => (Self::MaxInsertedAt, Kind::Time(6, zone)),
            "$urls" => (Self::Urls, Kind::Array(Box::new(Kind::Text))),
            "$num_uniq_urls" => (Self::UrlCount, Kind::Integer("UInt64")),
            "$entry_current_url" => text(SessionText::EntryUrl),
            "$entry_pathname" => text(SessionText::EntryPath),
            "$entry_hostname" => text(SessionText::EntryHost),
            "$end_current_url" | "$exit_current_url" => text(SessionText::EndUrl),
            "$end_pathname" | "$exit_pathname" => text(SessionText::EndPath),
            "$end_hostname" | "$exit_hostname" => text(SessionText::EndHost),
            "$last_external_click_url" => text(SessionText::LastExternalClick),
            "$pageview_count" => (Self::Pageviews, Kind::Integer("UInt64")),
            "$autocapture_count" => (Self::Autocaptures, Kind::Integer("UInt64")),
            "$screen_count" => (Self::Screens, Kind::Integer("UInt64")),
            "$page_screen_autocapture_count_up_to" => (Self::CountUpToTwo, Kind::Integer("UInt8")),
            "$channel_type" => (Self::ChannelType, Kind::Text),
            "$session_duration" | "duration" => (Self::Duration, Kind::Integer("Int64")),
            "$is_bounce" => (Self::IsBounce, Kind::Integer("UInt8")),
            "$vitals_lcp" => (Self::LargestPaint, Kind::Float),
            "$entry_has_gclid" | "$entry_has_fbclid" => {
                let column = name.replace("$entry_has_", "$entry_");
                (Self::HasAttribution(attribution(&column)?), Kind::Integer("UInt8"))
            }
            _ => (Self::Attribution(attribution(name)?), Kind::Text),
        };
        let nullable = matches!(column, Self::Attribution(_) | Self::LargestPaint | Self::Text(_, Empty::Null));
        Some((Column::Session(column), kind, nullable))
    }
}

fn attribution(name: &str) -> Option<usize> {
    ATTRIBUTION.iter().position(|(column, _)| *column == name)
}
