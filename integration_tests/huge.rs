//! Events of unusual size and depth.

use posthog_sandbox::posthog::{Event, Exports};

use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, event, events, minutes_ago, sandbox, sandbox_with_exports};

fn nested(levels: usize) -> String {
    format!("{{\"deep\":{}1{}}}", "[".repeat(levels), "]".repeat(levels))
}

fn long(bytes: usize) -> String {
    let unit = r#"é\"\n<🦔>\u0041 "#;
    format!("{{\"long\":\"{}\"}}", unit.repeat(bytes / unit.len()))
}

/// Sizes of `properties` that are far beyond what is usual, among small ones.
fn huge() -> Vec<Event> {
    let many_keys = (0..20_000).map(|number| format!("\"key {number}\":{number}")).collect::<Vec<_>>().join(",");
    let texts = [long(200_000), nested(10_000), long(2_000_000), format!("{{{many_keys}}}"), nested(100)];
    let huge = (1_000..).zip(texts);
    let huge = huge.map(|(number, properties)| Event { properties, ..event(number, minutes_ago(200)) });
    huge.chain(events(200, minutes_ago(300))).collect()
}

#[tokio::test]
async fn properties_of_any_size_and_depth_arrive_as_they_are() {
    for exports in [false, true] {
        let posthog = if exports { sandbox_with_exports(Exports::default()).await } else { sandbox().await };
        posthog.insert(PROJECT, huge());
        let source = Source::new(&posthog.url());
        let source = if exports { source.with_exports() } else { source.with_page_size(50) };
        let outcome = source.read_raw(&catalog(&["events"], "incremental")).await;
        for event in posthog.events(PROJECT) {
            let line = outcome.iter().find(|line| line.contains(&format!("\"id\":\"{}\"", event.uuid)));
            let line = line.unwrap_or_else(|| panic!("{} is missing", event.uuid));
            if !exports {
                assert!(line.contains(&event.properties), "{} was changed", event.uuid);
            } else if event.properties.contains("deep") {
                let depth = |text: &str| text.matches('[').count();
                assert_eq!(depth(line), depth(&event.properties), "{} was changed", event.uuid);
            } else {
                assert!(line.len() >= event.properties.len() / 2, "{} was cut", event.uuid);
            }
        }
    }
}
