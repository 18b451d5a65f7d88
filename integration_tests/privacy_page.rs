//! The columns in docs/privacy.md that are made from properties, written from the streams' definitions.

use std::collections::BTreeMap;
use std::fmt::Write;

use source_posthog::streams::{KEYSET_STREAMS, LISTS, TABLES};

use crate::support::program::{assert_committed, repository_file};

const PAGE: &str = "docs/privacy.md";
const BEGIN: &str = "<!-- columns made from properties, written by `make spec` -->\n";
const END: &str = "<!-- end of columns made from properties -->";

#[test]
fn privacy_page_names_the_columns_that_are_made_from_properties() {
    let columns = TABLES
        .iter()
        .map(|table| (table.stream, table.columns))
        .chain(KEYSET_STREAMS.iter().map(|stream| (stream.stream, stream.columns)));
    let mut made = Vec::new();
    for (stream, columns) in columns {
        made.extend(columns.iter().filter_map(|column| Some((stream, column.made_from?, column.field))));
    }
    for list in LISTS {
        made.extend(list.made_from.iter().map(|(field, property)| (list.stream, *property, *field)));
    }
    let mut fields: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (stream, property, field) in made {
        fields.entry((stream, property)).or_default().push(format!("`{field}`"));
    }
    let mut table = "| stream | property | columns |\n|---|---|---|\n".to_owned();
    for ((stream, property), fields) in fields {
        writeln!(table, "| `{stream}` | `{property}` | {} |", fields.join(", ")).unwrap();
    }
    let page = std::fs::read_to_string(repository_file(PAGE)).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("a place for the columns");
    let (_, after) = rest.split_once(END).expect("the end of the columns");
    assert_committed(PAGE, &format!("{before}{BEGIN}{table}{END}{after}"));
}
