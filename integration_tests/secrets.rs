//! Secrets stay secret, also where others would tell them: every library's trace is switched on, and
//! the servers quote what they were sent. `support::child` searches all that comes out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use posthog_sandbox::network::Proxy;
use posthog_sandbox::posthog::{Action, Exports, Fault, Sandbox};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use url::Url;

use crate::support::authority::Authority;
use crate::support::destination::Destination;
use crate::support::program::{Source, catalog, repository_file, run};
use crate::support::secrets::{AWKWARD_KEY, BEARER, HEADER, PROXY_PASSWORD, SIGNING_KEY, WEBHOOK};
use crate::support::world::{PROJECT, events, key, minutes_ago};

use posthog_sandbox::patterns::{Behaviour, Outcome, Webhook};

const LEVELS: [(&str, &str); 2] = [("LOG_LEVEL", "trace"), ("RUST_LOG", "trace")];

async fn posthog() -> Sandbox {
    let exports = Exports { redirects: 1, ..Exports::default() };
    let key = key(AWKWARD_KEY, &["*"], None);
    let posthog = Sandbox::builder().key(key).exports(exports).start().await.unwrap();
    posthog.insert(PROJECT, events(20, minutes_ago(90)));
    posthog
}

/// A status whose body quotes the request, as error pages of servers and proxies do.
fn quoting(code: u16, quote: &str, is_json: bool) -> Action {
    // Where it is cut for being too long must not matter either.
    let filler = "x".repeat(170);
    let body = if is_json {
        json!({"type": "x", "code": "x", "detail": format!("no {quote} here"), "attr": null}).to_string()
    } else {
        format!("<html><title>{filler}{quote}</title></html>")
    };
    Action::Status { code, body, headers: vec![("x-echo".to_owned(), quote.to_owned())] }
}

#[tokio::test]
async fn source_prints_no_secret_at_any_log_level() {
    let posthog = posthog().await;
    let (authority, proxy) = (Authority::new(), Proxy::start("sync", PROXY_PASSWORD).await.unwrap());
    let front = authority.encrypt(&posthog.url(), "posthog.test").await;
    let files = authority.encrypt(&posthog.files_url(), "files.test").await;
    posthog.set_files_root(&format!("https://files.test:{}", files.port()));
    let mut variable = Url::parse(&format!("http://{}", proxy.address())).unwrap();
    variable.set_username("sync").unwrap();
    variable.set_password(Some(PROXY_PASSWORD)).unwrap();
    for (level, value) in LEVELS {
        for method in ["export", "query"] {
            let source = Source::new(&format!("https://posthog.test:{}", front.port()));
            let trusted = source.file("ca.pem", &authority.certificate);
            let source = source
                .with("api_key", json!(AWKWARD_KEY))
                .with("method", json!({"type": method}))
                .with("attempts", json!(2))
                .with_environment(level, value)
                .with_environment("RUST_BACKTRACE", "full")
                .with_environment("SSL_CERT_FILE", trusted.to_str().unwrap())
                .with_environment("HTTPS_PROXY", variable.as_str())
                .with_environment("HTTP_PROXY", variable.as_str());
            posthog.set_faults(Vec::new()).unwrap();
            let (status, message) = source.check().await;
            assert_eq!(status, "SUCCEEDED", "{message}");
            let messages = source.read_all(&catalog(&["events", "projects"], "incremental"), None).await;
            assert_eq!(messages.ids("events").len(), 20);
            assert!(level == "LOG_LEVEL" || !messages.logs("TRACE").is_empty(), "the libraries say nothing");
            for (code, is_json) in [(400, true), (400, false), (403, true), (404, true), (500, false), (302, false)] {
                let quote = format!("Authorization: Bearer {AWKWARD_KEY}");
                posthog.set_faults(vec![Fault::new(quoting(code, &quote, is_json))]).unwrap();
                assert_eq!(source.check().await.0, "FAILED", "{code}");
                let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
                assert_eq!(outcome.code, Some(1), "{code}");
                if code != 302 && (is_json || code == 500) {
                    assert!(
                        outcome.messages.text().contains("Authorization: Bearer"),
                        "{}",
                        outcome.messages.without_records()
                    );
                }
            }
        }
    }
    assert!(proxy.seen().iter().all(|request| request.let_in));
}

#[tokio::test]
async fn errors_of_broken_downloads_contain_no_signed_urls() {
    let posthog = posthog().await;
    for (level, value) in LEVELS {
        for action in [Action::status(403), Action::status(500), Action::Reset, Action::CutGzip] {
            posthog.set_faults(vec![Fault::files(action.clone())]).unwrap();
            let source = Source::new(&posthog.url())
                .with_exports()
                .with("api_key", json!(AWKWARD_KEY))
                .with("attempts", json!(2))
                .with_environment(level, value);
            let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
            assert_eq!(outcome.code, Some(1), "{action:?}");
            assert!(!posthog.file_requests().is_empty());
        }
    }
}

#[tokio::test]
async fn error_does_not_quote_an_invalid_configuration() {
    let source = || Source::new("http://127.0.0.1:9").with("api_key", json!(AWKWARD_KEY));
    for source in [
        source().with("api_key", json!(format!("{AWKWARD_KEY} x"))),
        source().with("api_key", json!({"value": AWKWARD_KEY})),
        source().with("api_key", json!([AWKWARD_KEY])),
        source().with("base_url", json!(format!("https://me:{AWKWARD_KEY}@127.0.0.1:9"))),
        source().with("base_url", json!("https://me:phx_full@exa mple")),
        source().with("base_url", json!(format!("http://elsewhere.example/{AWKWARD_KEY}"))),
        source().with("start_date", json!(AWKWARD_KEY)),
        source().with("method", json!({"type": AWKWARD_KEY})),
    ] {
        let (status, _) = source.with_environment("LOG_LEVEL", "trace").check().await;
        assert_eq!(status, "FAILED");
    }
    // Not even a file that is no JSON.
    let source = source();
    for text in [format!("{{\"api_key\": {AWKWARD_KEY}}}"), AWKWARD_KEY.to_owned(), format!("\"{AWKWARD_KEY}")] {
        let mut command = source.bare();
        command.arg("check").arg("--config").arg(source.file("broken.json", &text));
        assert_eq!(run(command).await.messages.connection_status().0, "FAILED");
    }
}

fn line() -> String {
    json!({"type": "RECORD", "record": {"stream": "events", "data": {"uuid": "u"}, "emitted_at": 1}}).to_string() + "\n"
}

fn with_all_secrets(destination: Destination) -> Destination {
    destination
        .with("bearer_token", json!(BEARER))
        .with("signing_secret", json!(SIGNING_KEY))
        .with("headers", json!([{"name": "X-Team", "value": HEADER}]))
        .with("retry", json!({"first_wait_ms": 1, "max_elapsed_seconds": 0}))
}

#[tokio::test]
async fn destination_prints_no_secret_at_any_log_level() {
    let (webhook, authority) = (Webhook::start().await.unwrap(), Authority::new());
    let front = authority.encrypt(&webhook.url(), "127.0.0.1").await;
    let url = format!("https://127.0.0.1:{}{}", front.port(), Url::parse(&webhook.url()).unwrap().path());
    for (level, value) in LEVELS {
        let destination = with_all_secrets(Destination::new(&webhook)).with("webhook_url", json!(url));
        let trusted = destination.path("ca.pem");
        std::fs::write(&trusted, &authority.certificate).unwrap();
        let destination =
            destination.with_environment(level, value).with_environment("SSL_CERT_FILE", trusted.to_str().unwrap());
        webhook.behave(Behaviour::default());
        assert_eq!(destination.check(&["--send-test-record"]).await.0, "SUCCEEDED");
        destination.delivered(&line()).await;
        for outcome in [Outcome::status(401), Outcome::status(404), Outcome::status(500), Outcome::Break] {
            webhook.behave(Behaviour { always: Some(outcome), ..Behaviour::default() });
            assert_eq!(destination.write(&line()).await.code, Some(1));
        }
    }
}

#[tokio::test]
async fn secrets_quoted_in_webhook_responses_are_redacted() {
    // It answers anything with a fault, so it can stand in for a talkative webhook.
    let (server, webhook) = (Sandbox::builder().start().await.unwrap(), Webhook::start().await.unwrap());
    for quote in
        [format!("/api/app/webhooks/{WEBHOOK}"), WEBHOOK.to_owned(), format!("Bearer {BEARER}"), HEADER.to_owned()]
    {
        for code in [400, 401, 404, 413, 500] {
            for is_json in [true, false] {
                server.set_faults(vec![Fault::new(quoting(code, &quote, is_json))]).unwrap();
                let destination = with_all_secrets(Destination::new(&webhook))
                    .with("webhook_url", json!(format!("{}/api/app/webhooks/{WEBHOOK}", server.url())))
                    .with_environment("LOG_LEVEL", "trace");
                assert_eq!(destination.write(&line()).await.code, Some(1));
                let (status, _) = destination.check(&["--send-test-record"]).await;
                assert_eq!(status, "FAILED");
                if [400, 413].contains(&code) {
                    let destination = destination.with("dead_letter_file", json!("refused.jsonl"));
                    destination.delivered(&line()).await;
                    let refused = std::fs::read_to_string(destination.path("refused.jsonl")).unwrap();
                    assert!(!refused.contains(&quote), "{refused}");
                    assert!(serde_json::from_str::<Value>(&refused).is_ok(), "{refused}");
                }
            }
        }
    }
}

/// However much is left out of a response, a secret at the edge of it is left out as a whole.
#[tokio::test]
async fn secrets_at_the_edge_of_a_webhook_response_are_redacted_as_a_whole() {
    let (server, webhook) = (Sandbox::builder().start().await.unwrap(), Webhook::start().await.unwrap());
    for length in [180, 190, 2_030, 2_040, 65_520, 65_530] {
        // Blanks that are left out bring the edge into what is shown.
        for filler in [" ", "x"] {
            let body = format!("no{}{WEBHOOK} here", filler.repeat(length));
            server.set_faults(vec![Fault::new(Action::Status { code: 422, body, headers: Vec::new() })]).unwrap();
            let destination = with_all_secrets(Destination::new(&webhook))
                .with("webhook_url", json!(format!("{}/api/app/webhooks/{WEBHOOK}", server.url())))
                .with("dead_letter_file", json!("refused.jsonl"));
            let outcomes = destination.delivered(&line()).await;
            let refused = std::fs::read_to_string(destination.path("refused.jsonl")).unwrap();
            let begin = WEBHOOK.get(..4).unwrap();
            assert!(outcomes.text.contains("status 422 no"), "{}", outcomes.text);
            assert!(!outcomes.text.contains(begin) && !refused.contains(begin), "{length}: {refused}");
        }
    }
}

/// Notations of a part of the webhook's URL in which servers quote it.
fn quotes(part: &str) -> [String; 3] {
    [part.to_owned(), format!("/{part}/"), format!("no hook \"{part}\", sorry")]
}

#[tokio::test]
async fn every_part_of_the_webhook_url_that_is_quoted_is_redacted() {
    let server = Sandbox::builder().start().await.unwrap();
    let webhook = Webhook::start().await.unwrap();
    for (path, parts) in [
        ("/hooks/wh_pl4nted-slash/", vec!["wh_pl4nted-slash"]),
        ("/hooks/T0PL4NTED/run", vec!["T0PL4NTED", "run"]),
        ("/hook?token=QPL4NTED&v=1", vec!["QPL4NTED", "token=QPL4NTED&v=1"]),
        ("/hooks/plantedword", vec!["plantedword"]),
        ("/hooks/k9pl4", vec!["k9pl4"]),
        ("/hooks/pl4nted%20space", vec!["pl4nted%20space", "pl4nted space"]),
    ] {
        let url = Url::parse(&server.url()).unwrap().join(path).unwrap();
        let mut url_with_user = url.clone();
        url_with_user.set_username("pl4nted-user").unwrap();
        url_with_user.set_password(Some(PROXY_PASSWORD)).unwrap();
        let basic = STANDARD.encode(format!("pl4nted-user:{PROXY_PASSWORD}"));
        let others = ["pl4nted-user", PROXY_PASSWORD, &basic].map(str::to_owned);
        let in_base64 = parts.iter().filter(|part| part.len() > 4).map(|part| STANDARD.encode(format!("/{part}")));
        let all: Vec<String> = parts.iter().flat_map(|part| quotes(part)).chain(in_base64).chain(others).collect();
        for quote in all {
            server.set_faults(vec![Fault::new(quoting(422, &quote, true))]).unwrap();
            let destination = Destination::new(&webhook)
                .with("webhook_url", json!(url_with_user.as_str()))
                .with("dead_letter_file", json!("refused.jsonl"))
                .with_environment("LOG_LEVEL", "trace");
            let outcomes = destination.delivered(&line()).await;
            let refused = std::fs::read_to_string(destination.path("refused.jsonl")).unwrap();
            for text in [&outcomes.text, &refused] {
                assert!(text.contains("[secret]"), "{quote}: {text}");
                let is_word = |part: &&str| part.bytes().all(|byte| byte.is_ascii_lowercase());
                for secret in parts.iter().filter(|part| !is_word(part)).chain([&"pl4nted-user", &basic.as_str()]) {
                    assert!(!text.contains(*secret), "{quote}: {secret} in {text}");
                }
                assert!(!text.contains("plantedword") && !text.contains("hook run"), "{quote}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn every_part_of_a_header_that_is_quoted_is_redacted() {
    let (server, webhook) = (Sandbox::builder().start().await.unwrap(), Webhook::start().await.unwrap());
    let basic = STANDARD.encode("username:pl4ntedpw");
    for (value, parts) in [
        (format!("Basic {basic}"), vec![&*basic, "username:pl4ntedpw", "pl4ntedpw", "username"]),
        ("session=SESSPL4NTED; theme=dark".to_owned(), vec!["SESSPL4NTED"]),
        (r#"Digest realm="a b", key="KKKPL4NTED""#.to_owned(), vec!["KKKPL4NTED"]),
    ] {
        for part in parts {
            server.set_faults(vec![Fault::new(quoting(422, &format!("Basic <{part}>"), true))]).unwrap();
            let destination = Destination::new(&webhook)
                .with("webhook_url", json!(format!("{}/hooks/{WEBHOOK}", server.url())))
                .with("headers", json!([{"name": "X-Auth", "value": value}]))
                .with("dead_letter_file", json!("refused.jsonl"))
                .with_environment("LOG_LEVEL", "trace");
            let outcomes = destination.delivered(&line()).await;
            let refused = std::fs::read_to_string(destination.path("refused.jsonl")).unwrap();
            for text in [&outcomes.text, &refused] {
                assert!(text.contains("no Basic <[secret]> here"), "{part}: {text}");
            }
        }
    }
}

/// Notations in which servers, and what stands in front of them, quote a text.
fn notations(text: &str) -> Vec<String> {
    let each = |write: fn(u8) -> String| text.bytes().map(write).collect::<String>();
    let percent = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    vec![
        text.to_ascii_uppercase(),
        percent.clone(),
        percent.to_ascii_lowercase(),
        utf8_percent_encode(&percent, NON_ALPHANUMERIC).to_string(),
        percent.replace('%', "&#37;"),
        each(|byte| format!("%{byte:02x}")),
        each(|byte| format!("&#{byte};")),
        each(|byte| format!("&#x{byte:X};")),
        each(|byte| format!("&amp;#{byte};")),
        each(|byte| format!("\\u{byte:04X}")),
        each(|byte| format!("\\x{byte:02x}")),
        each(|byte| format!("{byte:02X}")),
        text.replace('-', "&hyphen;").replace('/', "\\/"),
    ]
}

#[tokio::test]
async fn quoted_secrets_are_redacted_in_every_notation() {
    let (server, webhook) = (Sandbox::builder().start().await.unwrap(), Webhook::start().await.unwrap());
    let secret = "pl4nted-part.of-it";
    for quote in notations(secret).into_iter().chain(notations(&format!("/hooks/{secret}"))) {
        for quoted in [json!(quote).to_string(), quote.clone()] {
            let body = format!("{{\"detail\":\"no {} here\"}}", quoted.trim_matches('"'));
            server.set_faults(vec![Fault::new(Action::Status { code: 422, body, headers: Vec::new() })]).unwrap();
            let destination = Destination::new(&webhook)
                .with("webhook_url", json!(format!("{}/hooks/{secret}", server.url())))
                .with("dead_letter_file", json!("refused.jsonl"));
            let outcomes = destination.delivered(&line()).await;
            let refused = std::fs::read_to_string(destination.path("refused.jsonl")).unwrap();
            for text in [&outcomes.text, &refused] {
                assert!(text.contains("no [secret] here"), "{quote}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn values_of_a_wrong_type_are_not_quoted() {
    let webhook = Webhook::start().await.unwrap();
    let fields = ["webhook_url", "bearer_token", "signing_secret", "headers", "batch", "concurrency", "record_shape"];
    let secret = format!("X-Key: {HEADER}");
    let values = [
        json!(secret),
        json!([secret]),
        json!({"name": secret, "value": 5}),
        json!([{"name": secret, "value": HEADER}]),
    ];
    for field in fields {
        for value in &values {
            let destination = Destination::new(&webhook);
            let destination = destination.with(field, value.clone()).with_environment("LOG_LEVEL", "trace");
            // What comes out is searched for the secret.
            let (_, message) = destination.check(&[]).await;
            assert!(!message.contains("X-Key"), "{field}: {message}");
        }
    }
    let source = Source::new("http://127.0.0.1:9");
    let specification = std::fs::read_to_string(repository_file("spec.json")).unwrap();
    let specification: Value = serde_json::from_str(&specification).unwrap();
    for field in specification["connectionSpecification"]["properties"].as_object().unwrap().keys() {
        for value in [
            json!(AWKWARD_KEY),
            json!([AWKWARD_KEY, 5]),
            json!({"type": AWKWARD_KEY, "a": AWKWARD_KEY}),
            json!([[AWKWARD_KEY]]),
        ] {
            let mut config = json!({"api_key": AWKWARD_KEY, "start_date": "2026-01-01", "base_url": "http://127.0.0.1:9", "attempts": 1});
            config[field] = value;
            let mut command = source.bare();
            command.arg("check").arg("--config").arg(source.file("wrong.json", &config.to_string()));
            drop(run(command).await);
        }
    }
    let mut command = source.bare();
    command.arg("check").arg("--config").arg(source.file("text.json", &json!(AWKWARD_KEY).to_string()));
    assert_eq!(run(command).await.messages.connection_status().0, "FAILED");
}

/// A core dump holds all that the program knows.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn programs_leave_no_core_dump() {
    let webhook = Webhook::start_with(Behaviour { always: Some(Outcome::Gate), ..Behaviour::default() }).await.unwrap();
    let destination = Destination::new(&webhook);
    let mut child = destination.write_command().spawn();
    let mut input = child.stdin.take().unwrap();
    input.write_all(line().as_bytes()).await.unwrap();
    webhook.wait_for_requests(1).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let of_cores: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().split_whitespace().collect();
    assert_eq!(of_cores[4..6], ["0", "0"], "{limits}");
    child.kill().await;
}
