//! The files that a connector is published with: they fit this version, and work as they stand.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::program::{Source, catalog, repository_file, run, state_file};
use crate::support::world::{PROJECT, assert_events, event, sandbox, two_hours_ago};

/// Microseconds of a time of day in UTC.
fn at(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

fn shipped(name: &str) -> Value {
    let path = repository_file("integration_tests").join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

/// The streams of a shipped catalog that a state names.
fn catalog_of(state: &Value) -> Value {
    let names: BTreeSet<&str> = state.as_array().unwrap().iter().map(stream_of).collect();
    let mut catalog = shipped("configured_catalog.json");
    catalog["streams"]
        .as_array_mut()
        .unwrap()
        .retain(|entry| names.contains(entry["stream"]["name"].as_str().unwrap()));
    assert_eq!(
        catalog["streams"].as_array().unwrap().len(),
        names.len(),
        "a stream of the state is not in the catalog"
    );
    catalog
}

fn stream_of(state: &Value) -> &str {
    state["stream"]["stream_descriptor"]["name"].as_str().unwrap()
}

#[tokio::test]
async fn shipped_catalog_contains_every_stream_and_can_be_read() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 200, 3, two_hours_ago());
    posthog.generate_lists(PROJECT, 3);
    let source = Source::new(&posthog.url()).with("rate_limit_share", json!(1));
    let catalog = shipped("configured_catalog.json");
    let discovered = run(source.command("discover")).await.messages.of_type("CATALOG")[0]["catalog"].clone();
    let modes = |streams: &Value, stream: fn(&Value) -> &Value| -> BTreeSet<String> {
        let streams = streams.as_array().unwrap().iter().map(stream);
        streams.map(|stream| format!("{} {}", stream["name"], stream["supported_sync_modes"])).collect()
    };
    assert_eq!(
        modes(&catalog["streams"], |entry| &entry["stream"]),
        modes(&discovered["streams"], |stream| stream),
        "configured_catalog.json is not about the streams of this version"
    );
    let messages = source.read_all(&catalog, None).await;
    for entry in catalog["streams"].as_array().unwrap() {
        let name = entry["stream"]["name"].as_str().unwrap();
        assert_eq!(messages.statuses(name).last().map(String::as_str), Some("COMPLETE"), "{name}");
    }
    assert_events(&messages, &posthog, &[PROJECT]);
}

#[tokio::test]
async fn sync_resumes_from_the_sample_state() {
    let posthog = sandbox().await;
    // In the sample, everything that arrived before February has been read.
    let received = |number, time| event(number, at(time));
    posthog.insert(
        PROJECT,
        vec![
            received(1, "2026-01-10T12:00:00Z"),
            received(2, "2026-01-31T20:00:00Z"),
            received(3, "2026-02-01T09:00:00Z"),
            received(4, "2026-02-10T12:00:00Z"),
        ],
    );
    posthog.generate_lists(PROJECT, 3);
    let source = Source::new(&posthog.url()).with("start_date", json!("2026-01-01T00:00:00Z"));
    let state = shipped("sample_state.json");
    let catalog = catalog_of(&state);
    let new = source.read_all(&catalog, Some(&state)).await;
    let numbers: BTreeSet<u64> =
        new.records("events").iter().map(|record| record["properties"]["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, BTreeSet::from([3, 4]));
    assert_eq!(
        source.read_all(&catalog, None).await.id_set("events").len(),
        4,
        "without the state, everything is read"
    );
    for state in state.as_array().unwrap() {
        assert!(!new.stream_state(stream_of(state)).is_null(), "{state} is not continued");
    }
}

#[tokio::test]
async fn error_names_the_field_of_the_invalid_configuration() {
    let source = Source::new("http://127.0.0.1:9");
    let config = source.file("invalid_config.json", &shipped("invalid_config.json").to_string());
    let mut check = source.bare();
    check.args(["check", "--config"]).arg(&config);
    let (status, message) = run(check).await.messages.connection_status();
    assert!(status == "FAILED" && message.contains("`start_date`"), "{status}: {message}");
    let mut read = source.bare();
    read.args(["read", "--config"]).arg(&config).arg("--catalog");
    read.arg(source.file("catalog.json", &shipped("configured_catalog.json").to_string()));
    let outcome = run(read).await;
    let errors = outcome.messages.errors();
    assert_eq!((outcome.code, errors.len()), (Some(1), 1), "{errors:?}");
    assert!(errors[0].starts_with("config_error") && errors[0].contains("`start_date`"), "{errors:?}");
}

/// Airbyte's tests want no records after a state from the far future, and success. But a user with such a
/// state would lose what is ingested until then.
#[tokio::test]
async fn state_from_the_future_is_refused() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 50, 3, two_hours_ago());
    posthog.generate_lists(PROJECT, 3);
    let source = Source::new(&posthog.url());
    let state = shipped("abnormal_state.json");
    let catalog = shipped("future_catalog.json");
    assert_eq!(catalog, catalog_of(&state), "future_catalog.json has the streams that abnormal_state.json names");
    let outcome = source.read(&catalog, Some(&state)).await;
    assert_eq!(outcome.code, Some(1));
    let (messages, errors) = (&outcome.messages, outcome.messages.errors());
    for state in state.as_array().unwrap() {
        let stream = stream_of(state);
        assert_eq!(messages.records(stream).len(), 0, "{stream}");
        let expected = format!("the state says that {stream} have been read up to 2099-01-01");
        let is_refused = |error: &String| error.starts_with("config_error") && error.contains(&expected);
        assert!(errors.iter().any(is_refused), "{stream}: {errors:?}");
        assert!(errors.iter().all(|error| error.contains("Clear the stream's state")), "{errors:?}");
    }
    assert!(!source.read_all(&catalog_of(&state), None).await.ids("persons").is_empty(), "there was something to read");
}

/// Events are read by figures, so a time that has not come cannot be what was read.
#[tokio::test]
async fn watermark_of_events_in_the_future_is_refused() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 50, 3, two_hours_ago());
    let watermark = json!({"version": 1, "projects": {"1001": {"created_at": "2099-01-01T00:00:00Z"}}});
    let cursor = json!({"1001": {"timestamp": "2099-01-01T00:00:00Z"}});
    for state in [watermark, cursor] {
        let state = state_file("events", &state);
        let outcome = Source::new(&posthog.url()).read(&catalog(&["events"], "incremental"), Some(&state)).await;
        assert_eq!((outcome.code, outcome.messages.records("events").len()), (Some(1), 0));
        let error = outcome.messages.errors().join("\n");
        assert!(error.contains("read up to 2099-01-01") && error.contains("start without a state"), "{error}");
    }
}

/// What builds and tests this project is the same everywhere, and nobody else can change it.
#[test]
fn what_others_publish_is_pinned() {
    let mut count = 0;
    for file in std::fs::read_dir(repository_file(".github/workflows")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for action in text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("uses: ")) {
            let (commit, version) = action.split_once('@').unwrap().1.split_once(" # v").unwrap_or(("", ""));
            let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_commit && version.split('.').count() == 3, "{}: {action}", path.display());
            count += 1;
        }
    }
    assert!(count > 10, "only {count} actions");
    for file in [
        "integration_tests/python/requirements.txt",
        "integration_tests/python/singer_requirements.txt",
        "benches/airbyte/requirements.txt",
    ] {
        let text = std::fs::read_to_string(repository_file(file)).unwrap();
        let (mut packages, mut hashes) = (0, 0);
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Some(hash) = line.strip_prefix("--hash=sha256:") {
                assert_eq!(hash.trim_end_matches(" \\").len(), 64, "{file}: {line}");
                hashes += 1;
            } else {
                assert!(line.contains("==") && line.ends_with('\\'), "{file}: {line}");
                packages += 1;
            }
        }
        assert!(packages > 20 && hashes >= packages, "{file}: {packages} packages, {hashes} hashes");
    }
}

/// The images of a release are built of nothing that has a tag only.
#[test]
fn base_images_of_releases_have_digests() {
    let text = |file: &str| std::fs::read_to_string(repository_file(file)).unwrap();
    let is_digest = |digest: &str| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (dockerfile, release) = (text("Dockerfile"), text(".github/workflows/release.yml"));
    let images: Vec<(&str, &str)> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("ARG ")?.split_once('='))
        .filter(|(name, _)| name.ends_with("_IMAGE"))
        .collect();
    for (name, image) in &images {
        let fixed = image.split_once("@sha256:").is_some_and(|(_, digest)| is_digest(digest));
        // Looked up once, at the beginning of the release, and given to each build by digest.
        let repository = image.split(':').next().unwrap();
        let given = format!("{name}=docker.io/library/{repository}@${{{{ needs.version.outputs.runtime-digest }}}}");
        assert!(fixed || release.contains(&given), "{name}={image}");
    }
    let names: Vec<String> = images.iter().map(|(name, _)| format!("${{{name}}}")).collect();
    let stages: BTreeSet<&str> = dockerfile.lines().filter_map(|line| line.split(" AS ").nth(1)).collect();
    for from in dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")) {
        let from = from.split(' ').next().unwrap();
        assert!(stages.contains(from) || names.iter().any(|name| name == from), "FROM {from}");
    }
    let checked = release.find("sha256:[0-9a-f]{64}$").expect("a digest is checked before it is used");
    assert!(checked < release.find("build-push-action@").unwrap());
    assert!(release.contains("image.base.digest=${{ needs.version.outputs.runtime-digest }}"), "users can see it");
}

#[test]
fn releases_are_built_without_caches_that_others_write() {
    let release = std::fs::read_to_string(repository_file(".github/workflows/release.yml")).unwrap();
    for cache in ["actions/cache", "rust-cache", "cache-from", "cache-to"] {
        assert!(!release.contains(cache), "{cache}");
    }
    let prepared = release.matches("docker/setup-buildx-action@").count();
    assert!(prepared > 0 && release.matches("cache-binary: false").count() == prepared, "{release}");
}
