//! The error message for a redirect by PostHog.
//!
//! Redirects of the API are never followed: another host must not get the key, and a query that is
//! sent again as a GET would mean something else.

use url::Url;

use crate::error::Error;

/// The error for a response that redirects `asked`, a URL below `base`, to `location`.
pub(super) fn redirect_error(base: &Url, asked: &Url, location: &str) -> Error {
    let Some(target) = asked.join(location).ok().and_then(plain).filter(|_| !location.is_empty()) else {
        return Error::config(
            "PostHog sends a redirect without a valid target; set `base_url` to the URL of PostHog itself",
        );
    };
    if target.origin() == base.origin() {
        return Error::config(format!(
            "PostHog redirects to {target}; a login page may be in front of it, or `base_url` has the wrong path: set `base_url` to the URL of PostHog itself"
        ));
    }
    let below = asked.path().strip_prefix(base.path()).unwrap_or_default().trim_end_matches('/');
    let moved = target.path().trim_end_matches('/').strip_suffix(below).filter(|_| !below.is_empty());
    Error::config(match moved.map(|root| root.trim_end_matches('/').to_owned()) {
        Some(root) => {
            let mut root_url = target.clone();
            root_url.set_path(&root);
            let root_url = root_url.as_str().trim_end_matches('/');
            format!("PostHog redirects to {target}; set `base_url` to {root_url}")
        }
        None => format!("PostHog redirects to {target}; set `base_url` to the URL of PostHog itself"),
    })
}

/// The URL without the parts that can be secret; `None` if it has no host.
fn plain(mut url: Url) -> Option<Url> {
    url.set_query(None);
    url.set_fragment(None);
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_right_base_url() {
        let base = Url::parse("https://us.posthog.com/").unwrap();
        let asked = base.join("api/projects/1/query/").unwrap();
        for (location, expected) in [
            ("https://eu.posthog.com/api/projects/1/query/", "set `base_url` to https://eu.posthog.com"),
            ("http://us.posthog.com/x/api/projects/1/query?key=s3cret", "set `base_url` to http://us.posthog.com/x"),
            ("//us.posthog.com:8443/api/projects/1/query/#s3cret", "set `base_url` to https://us.posthog.com:8443"),
            (
                "https://me:s3cret@sso.example/login?next=s3cret",
                "redirects to https://sso.example/login; set `base_url`",
            ),
            ("/login?s3cret", "redirects to https://us.posthog.com/login; a login page"),
            ("mailto:s3cret", "redirect without a valid target"),
            ("", "redirect without a valid target"),
            ("https://[s3cret", "redirect without a valid target"),
        ] {
            let message = redirect_error(&base, &asked, location).to_string();
            assert!(message.contains(expected) && !message.contains("s3cret"), "{location}: {message}");
        }
    }
}
