//! Certificates, proxies, unencrypted addresses and redirects.

use posthog_sandbox::network::{Encryption, Proxied, Proxy};
use posthog_sandbox::patterns::{Behaviour, Outcome, Webhook};
use posthog_sandbox::posthog::{Action, Exports, Fault, Sandbox};
use serde_json::{Value, json};
use url::Url;

use crate::support::authority::Authority;
use crate::support::destination::Destination;
use crate::support::program::{Source, catalog, run};
use crate::support::secrets::{PROXY_PASSWORD, WEBHOOK, WRONG_PROXY_PASSWORD};
use crate::support::world::{
    PROJECT, assert_events, assert_exported_events, events, minutes_ago, sandbox, sandbox_with_exports,
};

/// A name that no resolver knows.
const HOST: &str = "posthog.test";
/// Another one.
const FILES_HOST: &str = "files.test";

async fn sandbox_with_events() -> Sandbox {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(20, minutes_ago(10)));
    posthog
}

/// The same address with another scheme, host and port.
fn moved(url: &str, scheme: &str, host: &str, port: u16) -> String {
    format!("{scheme}://{host}:{port}{}", Url::parse(url).unwrap().path())
}

fn port(url: &str) -> u16 {
    Url::parse(url).unwrap().port().unwrap()
}

/// A source that reads from an encrypted address.
fn encrypted_source(front: &Encryption) -> Source {
    Source::new(&format!("https://127.0.0.1:{}", front.port()))
}

/// A destination that delivers to an encrypted address.
fn encrypted_destination(webhook: &Webhook, front: &Encryption) -> Destination {
    Destination::new(webhook).with("webhook_url", json!(moved(&webhook.url(), "https", "127.0.0.1", front.port())))
}

fn line() -> String {
    json!({"type": "RECORD", "record": {"stream": "events", "data": {"uuid": "u"}, "emitted_at": 1}}).to_string() + "\n"
}

/// What a proxy variable contains for this user.
fn proxy_variable(proxy: &Proxy, password: &str) -> String {
    let mut url = Url::parse(&format!("http://{}", proxy.address())).unwrap();
    url.set_username("sync").unwrap();
    url.set_password(Some(password)).unwrap();
    url.to_string()
}

async fn proxy() -> Proxy {
    Proxy::start("sync", PROXY_PASSWORD).await.unwrap()
}

fn assert_all_accepted(proxy: &Proxy, method: &str, target: &str) {
    let seen = proxy.seen();
    assert!(seen.iter().any(|request| request.method == method && request.target == target), "{seen:?}");
    assert!(seen.iter().all(|request| request.let_in), "{seen:?}");
}

#[tokio::test]
async fn untrusted_certificate_fails_at_once_with_an_explanation() {
    let (posthog, webhook) = (sandbox_with_events().await, Webhook::start().await.unwrap());
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (case, expected) in [
        ("unknown", "is not trusted; for a private certificate authority, set SSL_CERT_FILE"),
        ("expired", "has expired"),
        ("other host", "is for another host name"),
    ] {
        let (issuer, host, year) = match case {
            "unknown" => (&stranger, "127.0.0.1", 4000),
            "expired" => (&authority, "127.0.0.1", 2021),
            _ => (&authority, "posthog.example", 4000),
        };
        let front = issuer.encrypt_until(&posthog.url(), host, year).await;
        let source = encrypted_source(&front);
        let trusted = source.file("ca.pem", &authority.certificate);
        let trusted = trusted.to_str().unwrap();
        let source = source.with_environment("SSL_CERT_FILE", trusted);
        let (status, message) = source.check().await;
        assert_eq!(status, "FAILED", "{case}");
        assert!(message.contains(expected) && message.contains("`base_url`"), "{case}: {message}");
        let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
        assert_eq!(outcome.code, Some(1), "{case}");
        assert!(outcome.messages.errors()[0].starts_with("config_error"), "{:?}", outcome.messages.errors());

        let front = issuer.encrypt_until(&webhook.url(), host, year).await;
        let destination = encrypted_destination(&webhook, &front).with_environment("SSL_CERT_FILE", trusted);
        let (status, message) = destination.check(&[]).await;
        assert_eq!(status, "FAILED", "{case}");
        assert!(message.contains(expected) && message.contains("`webhook_url`"), "{case}: {message}");
        let outcomes = destination.write(&line()).await;
        assert_eq!(outcomes.code, Some(1), "{case}");
        assert!(outcomes.error().starts_with("config_error") && outcomes.error().contains(expected), "{case}");
        assert!(!outcomes.text.contains("attempt 1"), "it is not worth a second attempt: {}", outcomes.text);
    }
    assert!(posthog.requests().is_empty() && webhook.received().is_empty());
}

#[tokio::test]
async fn private_certificate_authority_in_ssl_cert_file_is_trusted() {
    let (posthog, webhook) = (sandbox_with_events().await, Webhook::start().await.unwrap());
    let authority = Authority::new();
    let front = authority.encrypt(&posthog.url(), "127.0.0.1").await;
    let source = encrypted_source(&front);
    let trusted = source.file("ca.pem", &authority.certificate);
    let source = source.with_environment("SSL_CERT_FILE", trusted.to_str().unwrap());
    assert_eq!(source.check().await.0, "SUCCEEDED");
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    // The two variables add up, and they replace what the system trusts.
    let strangers = source.file("strangers.pem", &Authority::new().certificate);
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("authority.pem"), &authority.certificate).unwrap();
    for (directory, expected) in [(folder.path().to_str().unwrap(), "SUCCEEDED"), ("/nowhere", "FAILED")] {
        let source = encrypted_source(&front)
            .with_environment("SSL_CERT_FILE", strangers.to_str().unwrap())
            .with_environment("SSL_CERT_DIR", directory);
        assert_eq!(source.check().await.0, expected, "{directory}");
    }
    let front = authority.encrypt(&webhook.url(), "127.0.0.1").await;
    let destination =
        encrypted_destination(&webhook, &front).with_environment("SSL_CERT_FILE", trusted.to_str().unwrap());
    destination.delivered(&line()).await;
    assert_eq!(webhook.records().len(), 1);
}

#[tokio::test]
async fn error_names_the_certificate_file_without_certificates() {
    let webhook = Webhook::start().await.unwrap();
    let source = Source::new("https://127.0.0.1:9");
    let garbage = source.file("garbage.pem", "no certificate");
    for file in [garbage.to_str().unwrap(), "/nowhere/ca.pem"] {
        let source = Source::new("https://127.0.0.1:9").with_environment("SSL_CERT_FILE", file);
        let (status, message) = source.check().await;
        assert_eq!(status, "FAILED");
        assert!(message.contains("SSL_CERT_FILE is set, and there is no usable certificate"), "{message}");
        let (status, message) = Destination::new(&webhook).with_environment("SSL_CERT_FILE", file).check(&[]).await;
        assert_eq!(status, "FAILED");
        assert!(message.contains("SSL_CERT_FILE is set, and there is no usable certificate"), "{message}");
    }
}

#[tokio::test]
async fn error_explains_that_the_server_does_not_use_tls() {
    let (posthog, webhook) = (sandbox_with_events().await, Webhook::start().await.unwrap());
    let source = Source::new(&moved(&posthog.url(), "https", "127.0.0.1", port(&posthog.url())));
    let (status, message) = source.check().await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("does not answer with TLS"), "{message}");
    let url = moved(&webhook.url(), "https", "127.0.0.1", port(&webhook.url()));
    let outcomes = Destination::new(&webhook).with("webhook_url", json!(url)).write(&line()).await;
    assert!(outcomes.error().contains("does not answer with TLS"), "{}", outcomes.error());
}

#[tokio::test]
async fn encrypted_connections_go_through_the_proxy() {
    let (posthog, webhook) = (sandbox_with_events().await, Webhook::start().await.unwrap());
    let (authority, proxy) = (Authority::new(), proxy().await);
    let variable = proxy_variable(&proxy, PROXY_PASSWORD);
    let front = authority.encrypt(&posthog.url(), HOST).await;
    let source = Source::new(&format!("https://{HOST}:{}", front.port()));
    let trusted = source.file("ca.pem", &authority.certificate);
    let trusted = trusted.to_str().unwrap();
    let source = source.with_environment("SSL_CERT_FILE", trusted).with_environment("HTTPS_PROXY", &variable);
    assert_eq!(source.check().await.0, "SUCCEEDED");
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    assert_all_accepted(&proxy, "CONNECT", &format!("{HOST}:{}", front.port()));

    let front = authority.encrypt(&webhook.url(), HOST).await;
    let destination = Destination::new(&webhook)
        .with("webhook_url", json!(moved(&webhook.url(), "https", HOST, front.port())))
        .with_environment("SSL_CERT_FILE", trusted)
        .with_environment("HTTPS_PROXY", &variable);
    destination.delivered(&line()).await;
    assert_eq!(webhook.records().len(), 1);
    assert_all_accepted(&proxy, "CONNECT", &format!("{HOST}:{}", front.port()));
}

#[tokio::test]
async fn unencrypted_connections_and_downloads_go_through_the_proxy() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(20, minutes_ago(90)));
    let (webhook, proxy) = (Webhook::start().await.unwrap(), proxy().await);
    let variable = proxy_variable(&proxy, PROXY_PASSWORD);
    let files = format!("{FILES_HOST}:{}", port(&posthog.files_url()));
    posthog.set_files_root(&format!("http://{files}"));
    for host in [HOST, "posthog.localhost"] {
        let source = Source::new(&moved(&posthog.url(), "http", host, port(&posthog.url())))
            .with_exports()
            .with("allow_http", json!(true))
            .with_environment("HTTP_PROXY", &variable);
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_exported_events(&messages, &posthog, &[PROJECT]);
        assert_all_accepted(&proxy, "POST", &format!("{host}:{}", port(&posthog.url())));
        assert_all_accepted(&proxy, "GET", &files);
    }
    let destination = Destination::new(&webhook)
        .with("webhook_url", json!(moved(&webhook.url(), "http", HOST, port(&webhook.url()))))
        .with("allow_http", json!(true))
        .with_environment("HTTP_PROXY", &variable);
    destination.delivered(&line()).await;
    assert_eq!(webhook.records().len(), 1);
    assert_all_accepted(&proxy, "POST", &format!("{HOST}:{}", port(&webhook.url())));
}

#[tokio::test]
async fn hosts_in_no_proxy_are_contacted_directly() {
    let (posthog, webhook, proxy) = (sandbox_with_events().await, Webhook::start().await.unwrap(), proxy().await);
    let variable = proxy_variable(&proxy, PROXY_PASSWORD);
    for exempt in [HOST, "example.com,.test", "*"] {
        // Only the proxy knows where it is.
        let url = moved(&posthog.url(), "http", HOST, port(&posthog.url()));
        let source = Source::new(&url).with("allow_http", json!(true)).with("attempts", json!(1));
        let source = source.with_environment("HTTP_PROXY", &variable).with_environment("NO_PROXY", exempt);
        let (status, message) = source.check().await;
        assert!(status == "FAILED" && message.contains("no connection"), "{exempt}: {message}");
        let url = moved(&webhook.url(), "http", HOST, port(&webhook.url()));
        let destination = Destination::new(&webhook).with("webhook_url", json!(url)).with("allow_http", json!(true));
        let destination = destination.with_environment("HTTP_PROXY", &variable).with_environment("NO_PROXY", exempt);
        assert_eq!(destination.check(&[]).await.0, "FAILED", "{exempt}");
        assert_eq!(proxy.seen(), [], "{exempt}");
    }
}

#[tokio::test]
async fn nothing_for_this_machine_goes_through_a_proxy() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(20, minutes_ago(90)));
    let (webhook, proxy) = (Webhook::start().await.unwrap(), proxy().await);
    let variable = proxy_variable(&proxy, PROXY_PASSWORD);
    for name in ["HTTP_PROXY", "ALL_PROXY", "http_proxy"] {
        for host in ["127.0.0.1", "localhost"] {
            let source = Source::new(&moved(&posthog.url(), "http", host, port(&posthog.url()))).with_exports();
            let source = source.with_environment(name, &variable);
            let warnings = run(source.command("check")).await.messages.logs("WARN");
            assert!(warnings.iter().any(|line| line.contains(&format!("({name}) is not used"))), "{warnings:?}");
            assert!(!warnings.concat().contains(PROXY_PASSWORD), "{warnings:?}");
            let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
            assert_exported_events(&messages, &posthog, &[PROJECT]);
            let url = moved(&webhook.url(), "http", host, port(&webhook.url()));
            let destination = Destination::new(&webhook).with("webhook_url", json!(url));
            destination.with_environment(name, &variable).delivered(&line()).await;
        }
    }
    assert_eq!(proxy.seen(), []);
    // Names below `localhost` are asked of resolvers, so they can be anywhere.
    let url = moved(&posthog.url(), "http", "posthog.localhost", port(&posthog.url()));
    let (status, message) = Source::new(&url).check().await;
    assert!(status == "FAILED" && message.contains("allow_http"), "{message}");
}

#[tokio::test]
async fn wrong_proxy_password_is_explained() {
    let (webhook, proxy) = (Webhook::start().await.unwrap(), proxy().await);
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(20, minutes_ago(90)));
    let variable = proxy_variable(&proxy, WRONG_PROXY_PASSWORD);
    for (scheme, name) in [("http", "HTTP_PROXY"), ("https", "HTTPS_PROXY")] {
        let source = Source::new(&format!("{scheme}://{HOST}:{}", port(&posthog.url())));
        let source = source.with("allow_http", json!(true)).with_environment(name, &variable);
        let (status, message) = source.with_environment("RUST_LOG", "trace").check().await;
        assert_eq!(status, "FAILED");
        assert!(message.contains("the proxy requires authentication") && message.contains(name), "{scheme}: {message}");
        let destination = Destination::new(&webhook)
            .with("webhook_url", json!(moved(&webhook.url(), scheme, HOST, port(&webhook.url()))))
            .with("allow_http", json!(true))
            .with_environment(name, &variable)
            .with_environment("RUST_LOG", "trace");
        let outcomes = destination.write(&line()).await;
        assert!(
            outcomes.error().starts_with("config_error: the proxy requires authentication"),
            "{}",
            outcomes.error()
        );
        let (status, message) = destination.check(&[]).await;
        assert!(status == "FAILED" && message.contains("the proxy requires authentication"), "{message}");
    }
    assert!(posthog.requests().is_empty() && webhook.received().is_empty());
    // The API without the proxy, the files with it.
    posthog.set_files_root(&format!("http://{FILES_HOST}:{}", port(&posthog.files_url())));
    let source = Source::new(&moved(&posthog.url(), "http", "localhost", port(&posthog.url())))
        .with_exports()
        .with_environment("HTTP_PROXY", &variable);
    let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(outcome.code, Some(1));
    let errors = outcome.messages.errors();
    assert!(
        errors[0].starts_with("config_error") && errors[0].contains("the proxy requires authentication"),
        "{errors:?}"
    );
    assert!(posthog.file_requests().is_empty());
    assert!(proxy.seen().iter().all(|Proxied { let_in, .. }| !let_in));
}

#[tokio::test]
async fn a_proxy_that_cannot_be_used_is_named_without_its_password() {
    let (posthog, webhook) = (sandbox_with_events().await, Webhook::start().await.unwrap());
    let url = moved(&posthog.url(), "http", HOST, port(&posthog.url()));
    let source = Source::new(&url).with("allow_http", json!(true)).with("attempts", json!(1));
    let source = source.with_environment("HTTP_PROXY", "http://me:s3cret-pass@127.0.0.1:9");
    let (status, message) = source.check().await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("through the proxy 127.0.0.1:9 (HTTP_PROXY)") && !message.contains("s3cret"), "{message}");
    let url = moved(&webhook.url(), "http", HOST, port(&webhook.url()));
    let destination = Destination::new(&webhook).with("webhook_url", json!(url)).with("allow_http", json!(true));
    let destination = destination.with_environment("all_proxy", "127.0.0.1:9");
    let (status, message) = destination.check(&[]).await;
    assert!(status == "FAILED" && message.contains("through the proxy 127.0.0.1:9 (all_proxy)"), "{message}");
    for value in ["\"http://me:s3cret-pass@127.0.0.1:9\"", "http:/127.0.0.1", " http://127.0.0.1:9", "ftp://127.0.0.1"]
    {
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            let (status, message) = Source::new(&posthog.url()).with_environment(name, value).check().await;
            assert_eq!(status, "FAILED", "{name}={value}");
            assert!(message.starts_with(&format!("{name} is not the URL of a proxy")), "{message}");
            assert!(!message.contains("s3cret"), "{message}");
            let (status, message) = Destination::new(&webhook).with_environment(name, value).check(&[]).await;
            assert!(status == "FAILED" && message.contains("is not the URL of a proxy"), "{message}");
        }
    }
    assert!(posthog.requests().is_empty() && webhook.received().is_empty());
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_not_passed_over() {
    let posthog = sandbox_with_events().await;
    let authority = Authority::new();
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("authority.pem"), &authority.certificate).unwrap();
    let good = folder.path().join("authority.pem");
    let damaged = folder.path().join("damaged.pem");
    std::fs::write(
        &damaged,
        authority.certificate.clone() + "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    for (file, directory, expected) in [
        (
            "/nowhere/ca.pem",
            folder.path().to_str().unwrap(),
            "SSL_CERT_FILE is set, and there is no usable certificate",
        ),
        (
            damaged.to_str().unwrap(),
            folder.path().to_str().unwrap(),
            "SSL_CERT_FILE is set, and there is no usable certificate",
        ),
        (good.to_str().unwrap(), "/nowhere", "SSL_CERT_DIR is set, and the folder `/nowhere` cannot be read"),
    ] {
        let source = Source::new(&posthog.url());
        let source = source.with_environment("SSL_CERT_FILE", file).with_environment("SSL_CERT_DIR", directory);
        let (status, message) = source.check().await;
        assert_eq!(status, "FAILED", "{file} {directory}");
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn self_signed_certificates_work_or_are_explained() {
    let posthog = sandbox_with_events().await;
    for (is_authority, expected) in [(false, "SUCCEEDED"), (true, "FAILED")] {
        let (front, certificate) = Authority::self_signed(&posthog.url(), "127.0.0.1", is_authority).await;
        let source = encrypted_source(&front);
        let trusted = source.file("own.pem", &certificate);
        let (status, message) = source.with_environment("SSL_CERT_FILE", trusted.to_str().unwrap()).check().await;
        assert_eq!(status, expected, "{message}");
        assert!(!is_authority || message.contains("basicConstraints=critical,CA:FALSE"), "{message}");
    }
}

#[tokio::test]
async fn unencrypted_urls_require_permission() {
    let (webhook, proxy) = (Webhook::start().await.unwrap(), proxy().await);
    let variable = proxy_variable(&proxy, PROXY_PASSWORD);
    let posthog = sandbox_with_events().await;
    for host in [HOST, "192.0.2.1", "[2001:db8::1]", "127.0.0.1.example.com", "localhost.example.com"] {
        let url = moved(&posthog.url(), "http", host, port(&posthog.url()));
        let (status, message) = Source::new(&url).with_environment("HTTP_PROXY", &variable).check().await;
        assert!(status == "FAILED" && message.contains("allow_http"), "{host}: {message}");
        let url = moved(&webhook.url(), "http", host, port(&webhook.url()));
        let destination = Destination::new(&webhook).with("webhook_url", json!(url));
        let (status, message) = destination.with_environment("HTTP_PROXY", &variable).check(&[]).await;
        assert!(status == "FAILED" && message.contains("allow_http"), "{host}: {message}");
    }
    assert_eq!(proxy.seen(), []);
}

/// Every request is answered with a redirect.
fn redirect(posthog: &Sandbox, code: u16, location: &str) {
    let headers = vec![("location".to_owned(), location.to_owned())];
    posthog.set_faults(vec![Fault::new(Action::Status { code, body: String::new(), headers })]).unwrap();
}

#[tokio::test]
async fn api_key_is_not_sent_to_redirect_targets() {
    let (posthog, other) = (sandbox_with_events().await, sandbox_with_events().await);
    let location = |root: &str| format!("{root}/api/projects/{PROJECT}/query/?phx_full");
    for code in [301, 302, 303, 307, 308] {
        for (target, expected) in [
            (location(&other.url()), format!("set `base_url` to {}", other.url())),
            (location(&moved(&other.url(), "http", "localhost", port(&other.url()))), "`base_url`".to_owned()),
            (format!("{}/login?next=phx_full", posthog.url()), "a login page may be in front of it".to_owned()),
            ("/login?next=phx_full".to_owned(), format!("PostHog redirects to {}/login;", posthog.url())),
        ] {
            redirect(&posthog, code, &target);
            let source = Source::new(&posthog.url()).with("project_ids", json!([PROJECT]));
            let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
            assert_eq!(outcome.code, Some(1), "{code} {target}");
            let errors = outcome.messages.errors();
            assert!(errors[0].starts_with("config_error"), "{errors:?}");
            let said = outcome.messages.text();
            assert!(errors.iter().any(|error| error.contains("redirects to")), "{code} {target}: {said}");
            if target.contains("/query/") && !target.contains("localhost") {
                // Not every request is for the path of the redirect; this one is.
                redirect_queries(&posthog, code, &target);
                let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
                assert!(outcome.messages.errors()[0].contains(&expected), "{code}: {:?}", outcome.messages.errors());
            } else {
                assert!(errors[0].contains(&expected), "{code} {target}: {errors:?}");
            }
        }
    }
    assert_eq!(other.requests().len(), 0, "a redirect was followed");
}

/// The same for queries alone.
fn redirect_queries(posthog: &Sandbox, code: u16, location: &str) {
    let headers = vec![("location".to_owned(), location.to_owned())];
    posthog.set_faults(vec![Fault::query(Action::Status { code, body: String::new(), headers })]).unwrap();
}

#[tokio::test]
async fn records_are_not_sent_to_redirect_targets() {
    let (webhook, other) = (Webhook::start().await.unwrap(), Webhook::start().await.unwrap());
    let origin = other.url().split("/api").next().unwrap().to_owned();
    for code in [301, 302, 303, 307, 308] {
        for (location, expected) in [
            (other.url(), format!("{origin}; set `webhook_url`")),
            (format!("/api/app/webhooks/{WEBHOOK}/"), "the same URL with a trailing slash".into()),
            ("/login".into(), "another path; set `webhook_url`".into()),
            ("nowhere:".into(), "another path; set `webhook_url`".into()),
        ] {
            let headers = vec![("location".to_owned(), location)];
            let always = Some(Outcome::Status { code, headers });
            webhook.behave(Behaviour { always, ..Behaviour::default() });
            let outcomes = Destination::new(&webhook).write(&line()).await;
            let error = outcomes.error();
            let expected = format!("config_error: the webhook redirects to {expected}");
            assert!(error.starts_with(&expected), "{code}: {error}");
        }
    }
    assert!(other.received().is_empty() && webhook.records() == Vec::<Value>::new());
}

/// Every download is answered with a redirect.
fn redirect_downloads(posthog: &Sandbox, location: &str) {
    let headers = vec![("location".to_owned(), location.to_owned())];
    posthog.set_faults(vec![Fault::files(Action::Status { code: 307, body: String::new(), headers })]).unwrap();
}

#[tokio::test]
async fn downloads_are_not_led_to_where_only_this_network_can_go() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(20, minutes_ago(90)));
    let proxy = proxy().await;
    let variable = proxy_variable(&proxy, PROXY_PASSWORD);
    let files = port(&posthog.files_url());
    // As far as anybody here knows, it is on the Internet.
    let outside = Source::new(&moved(&posthog.url(), "http", HOST, port(&posthog.url())));
    let outside = outside.with_exports().with("allow_http", json!(true)).with_environment("HTTP_PROXY", &variable);
    let here = Source::new(&posthog.url()).with_exports().with_environment("HTTP_PROXY", &variable);
    let refused = async |source: &Source, place: &str, host: &str| {
        let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
        let errors = outcome.messages.errors();
        let expected = format!("config_error: project 1001: PostHog leads downloads to {place}, where");
        assert!(errors[0].starts_with(&expected), "{host}: {errors:?}");
        assert_eq!((outcome.code, outcome.messages.records("events").len()), (Some(1), 0), "{host}");
    };
    for (host, place, from_here) in [
        ("127.0.0.1", "this machine (`127.0.0.1`)", false),
        ("2130706433", "this machine (`127.0.0.1`)", false),
        ("0.0.0.0", "this machine (`0.0.0.0`)", false),
        ("localhost", "this machine (`localhost`)", false),
        ("0177.0.0.1", "this machine (`127.0.0.1`)", false),
        ("0x7f.1", "this machine (`127.0.0.1`)", false),
        ("[::127.0.0.1]", "this machine (`[::7f00:1]`)", false),
        ("[2002:7f00:1::]", "this machine (`[2002:7f00:1::]`)", false),
        ("[::ffff:127.0.0.1]", "this machine (`[::ffff:7f00:1]`)", false),
        ("10.0.0.1", "a private network (`10.0.0.1`)", false),
        ("2852039166", "a link-local address (`169.254.169.254`)", true),
        ("169.254.169.254", "a link-local address (`169.254.169.254`)", true),
        ("[fd00:ec2::254]", "a link-local address (`[fd00:ec2::254]`)", true),
    ] {
        let location = format!("http://{host}:{files}");
        posthog.set_faults(Vec::new()).unwrap();
        posthog.set_files_root(&location);
        refused(&outside, place, host).await;
        if from_here {
            refused(&here, place, host).await;
        }
        assert!(posthog.file_requests().is_empty(), "{host}");
    }
    // Nor by a redirect of a host where they may be.
    posthog.set_files_root(&format!("http://{FILES_HOST}:{files}"));
    redirect_downloads(&posthog, &format!("http://127.0.0.1:{files}/admin"));
    refused(&outside, "this machine (`127.0.0.1`)", "redirect").await;
    assert!(posthog.file_requests().iter().all(|request| request.path != "/admin"));
    assert_eq!(posthog.file_requests().len(), 1);
    let allowed = [format!("{HOST}:{}", port(&posthog.url())), format!("{FILES_HOST}:{files}")];
    assert!(proxy.seen().iter().all(|request| allowed.contains(&request.target)), "{:?}", proxy.seen());
}

#[tokio::test]
async fn encrypted_downloads_are_not_led_to_unencrypted_ones() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(20, minutes_ago(90)));
    let authority = Authority::new();
    let front = authority.encrypt(&posthog.files_url(), "127.0.0.1").await;
    let source = Source::new(&posthog.url()).with_exports();
    let trusted = source.file("ca.pem", &authority.certificate);
    let source = source.with_environment("SSL_CERT_FILE", trusted.to_str().unwrap());
    posthog.set_files_root(&format!("https://127.0.0.1:{}", front.port()));
    redirect_downloads(&posthog, &format!("{}/admin", posthog.files_url()));
    let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
    let errors = outcome.messages.errors();
    assert!(errors[0].contains("PostHog offers the files at an unencrypted URL"), "{errors:?}");
    assert!(posthog.file_requests().iter().all(|request| request.path != "/admin"));
    posthog.set_faults(Vec::new()).unwrap();
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_exported_events(&messages, &posthog, &[PROJECT]);
}
