//! Encryption, proxies and redirects: where the key may go, and what is said when it may not.

use posthog_sandbox::network::{Proxy, TlsFront};
use posthog_sandbox::posthog::{Action, Exports, Fault, Sandbox};
use serde_json::json;

use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, assert_events, assert_exported_events, events, minutes_ago, sandbox};

async fn sandbox_with_events() -> Sandbox {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(50, minutes_ago(300)));
    posthog
}

/// A source that trusts this authority alone.
fn trusting(url: &str, authority: &str) -> Source {
    let source = Source::new(url);
    let file = source.file("authority.pem", authority);
    source.with_environment("SSL_CERT_FILE", file.to_str().unwrap()).with_environment("SSL_CERT_DIR", "")
}

#[tokio::test]
async fn an_unknown_authority_is_refused_with_what_to_do() {
    let posthog = sandbox_with_events().await;
    let front = TlsFront::start(&posthog.url(), &["localhost"], 0).await.unwrap();
    let (status, message) = Source::new(&front.url()).check().await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("is not trusted") && message.contains("SSL_CERT_FILE"), "{message}");
    assert!(posthog.requests().is_empty(), "something was sent");
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_its_certificate_is_named() {
    let posthog = sandbox_with_events().await;
    let front = TlsFront::start(&posthog.url(), &["localhost"], 0).await.unwrap();
    let source = trusting(&front.url(), front.authority());
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_events(&messages, &posthog, &[PROJECT]);
}

#[tokio::test]
async fn certificates_of_others_and_old_ones_are_refused() {
    let posthog = sandbox_with_events().await;
    for (names, days, expected) in
        [(["elsewhere.example"], 0, "is for another host"), (["localhost"], -60, "has expired")]
    {
        let front = TlsFront::start(&posthog.url(), &names, days).await.unwrap();
        let (status, message) = trusting(&front.url(), front.authority()).check().await;
        assert_eq!(status, "FAILED");
        assert!(message.contains(expected), "{message}");
    }
    assert!(posthog.requests().is_empty(), "something was sent");
}

#[tokio::test]
async fn a_proxy_is_used_with_its_password_and_without_telling_it() {
    let posthog = sandbox_with_events().await;
    let front = TlsFront::start(&posthog.url(), &["localhost"], 0).await.unwrap();
    let proxy = Proxy::start("user", "pr0xy-secret").await.unwrap();
    let address = format!("http://user:pr0xy-secret@{}", proxy.address());
    for (url, variable) in [(front.url(), "HTTPS_PROXY"), (posthog.url(), "HTTP_PROXY")] {
        let before = proxy.targets().len();
        let source = trusting(&url, front.authority()).with_environment(variable, &address);
        let messages =
            source.with_environment("LOG_LEVEL", "trace").read_all(&catalog(&["events"], "incremental"), None).await;
        assert_events(&messages, &posthog, &[PROJECT]);
        assert!(proxy.targets().len() > before, "{variable} was not used");
        let targets = proxy.targets().len();
        let source = trusting(&url, front.authority()).with_environment(variable, &address);
        let source = source.with_environment("NO_PROXY", "localhost,127.0.0.1");
        source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_eq!(proxy.targets().len(), targets, "NO_PROXY was not heeded");
    }
    assert_eq!(proxy.refused(), 0);
}

#[tokio::test]
async fn files_come_through_the_proxy_as_well() {
    let posthog = Sandbox::builder().exports(Exports::default()).start().await.unwrap();
    posthog.insert(PROJECT, events(50, minutes_ago(300)));
    let proxy = Proxy::start("user", "pr0xy-secret").await.unwrap();
    let source = Source::new(&posthog.url()).with_exports();
    let source = source.with_environment("HTTP_PROXY", &format!("http://user:pr0xy-secret@{}", proxy.address()));
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_exported_events(&messages, &posthog, &[PROJECT]);
    let host = posthog.files_url().split("://").nth(1).unwrap().trim_end_matches('/').to_owned();
    assert!(proxy.targets().contains(&host), "{:?} lacks {host}", proxy.targets());
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    let posthog = sandbox_with_events().await;
    let front = TlsFront::start(&posthog.url(), &["localhost"], 0).await.unwrap();
    let proxy = Proxy::start("user", "pr0xy-secret").await.unwrap();
    for url in [front.url(), posthog.url()] {
        let address = format!("http://user:wr0ng-secret@{}", proxy.address());
        let source = trusting(&url, front.authority()).with("attempts", json!(2));
        let source = source.with_environment("HTTPS_PROXY", &address).with_environment("HTTP_PROXY", &address);
        let (status, message) = source.check().await;
        assert_eq!(status, "FAILED");
        assert!(message.to_lowercase().contains("proxy"), "{message}");
    }
    assert!(proxy.refused() > 0);
}

#[tokio::test]
async fn the_key_does_not_follow_a_redirect() {
    let elsewhere = sandbox().await;
    for code in [301, 302, 303, 307, 308] {
        let posthog = sandbox_with_events().await;
        let location = format!("{}/api/users/@me/?secret=1", elsewhere.url());
        let redirect = Action::Status { code, body: "{}".into(), headers: vec![("location".into(), location)] };
        posthog.set_faults(vec![Fault::query(redirect)]).unwrap();
        let outcome = Source::new(&posthog.url()).read(&catalog(&["events"], "incremental"), None).await;
        assert_eq!(outcome.code, Some(1));
        let errors = outcome.messages.errors().join("\n");
        assert!(errors.contains("redirects to") && errors.contains("set `base_url`"), "{code}: {errors}");
    }
    assert!(elsewhere.requests().is_empty(), "the redirect was followed");
}

#[tokio::test]
async fn plain_http_needs_the_users_word() {
    let source = |url: &str| Source::new(url).with("attempts", json!(1));
    let (status, message) = source("http://posthog.example").check().await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("`allow_http`"), "{message}");
    // With the user's word it is tried: the proxy hears of it instead of the network.
    let proxy = Proxy::start("user", "pr0xy-secret").await.unwrap();
    let address = format!("http://user:pr0xy-secret@{}", proxy.address());
    let allowed =
        source("http://posthog.invalid").with("allow_http", json!(true)).with_environment("HTTP_PROXY", &address);
    let (status, message) = allowed.check().await;
    assert_eq!(status, "FAILED");
    assert!(!message.contains("`allow_http`"), "{message}");
    assert_eq!(proxy.targets().first().map(String::as_str), Some("posthog.invalid"));
}
