//! What surrounds every answer and every request: headers, cookies, where the console lives.
//!
//! A vote needs three things that another site cannot have: the session's cookie
//! (`SameSite=Lax`, so no foreign form carries it), the token that our own page put into its
//! form, and an `Origin` that is ours.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use openidconnect::url::Url;

/// Nothing inline, nothing from elsewhere, no frame around it, no form to elsewhere.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'";

/// Where browsers reach the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// As browsers name it: scheme, host, and the port unless it is the usual one.
    text: String,
    secure: bool,
    /// Tells gateways on one loopback address apart, whose cookies browsers mix.
    port: u16,
}

/// The console has no address that a browser could use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsoleError {
    #[error("`review.public_url` is not set, and the admin listener is not on loopback")]
    NoAddress,
    #[error("`review.public_url` is `{0}`: the console needs a scheme, a host and no path")]
    Address(String),
}

impl Origin {
    /// Whether a link is one to another console than this.
    pub(super) fn is_left_by(&self, link: &str) -> bool {
        Url::parse(link).is_ok_and(|url| {
            ["http", "https"].contains(&url.scheme())
                && url.origin().ascii_serialization() != self.text
        })
    }

    pub(super) fn of(public_url: &str) -> Result<Self, ConsoleError> {
        let wrong = || ConsoleError::Address(public_url.to_owned());
        let url = Url::parse(public_url).map_err(|_| wrong())?;
        let bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !bare || !["http", "https"].contains(&url.scheme()) {
            return Err(wrong());
        }
        Ok(Self {
            text: url.origin().ascii_serialization(),
            secure: url.scheme() == "https",
            port: url.port_or_known_default().unwrap_or_default(),
        })
    }

    pub(super) fn callback(&self) -> String {
        format!("{}/console/callback", self.text)
    }

    /// `__Host-` keeps other hosts and paths from setting it, but needs `https`.
    pub(super) fn cookie_name(&self, what: &str) -> String {
        if self.secure {
            format!("__Host-holdpoint{what}")
        } else {
            format!("holdpoint{what}-{}", self.port)
        }
    }

    /// A `Set-Cookie`. Without `seconds` it ends with the browser; with none left it is removed.
    pub(super) fn cookie(&self, name: &str, value: &str, seconds: Option<u64>) -> String {
        let mut cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax");
        if self.secure {
            cookie.push_str("; Secure");
        }
        if let Some(seconds) = seconds {
            cookie.push_str(&format!("; Max-Age={seconds}"));
        }
        cookie
    }

    /// Whether a page of ours sent this. A browser says so in one of two headers.
    pub(super) fn sent(&self, headers: &HeaderMap) -> bool {
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (Some(origin), None) => {
                origin.as_bytes() == self.text.as_bytes()
                    && site.is_none_or(|site| site == b"same-origin")
            }
            (None, _) => site == Some(b"same-origin"),
            _ => false,
        }
    }
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(have, value)| (have == name).then_some(value))
}

/// For every answer.
pub(super) async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: with that, browsers say `Origin: null` of our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), microphone=(), geolocation=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Style and script say otherwise themselves.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::of(url).unwrap()
    }

    #[test]
    fn cookies_are_for_this_host_alone_and_for_no_script() {
        let at = origin("https://gw.example");
        let name = at.cookie_name("");
        assert_eq!(name, "__Host-holdpoint");
        assert_eq!(
            at.cookie(&name, "v", None),
            "__Host-holdpoint=v; Path=/; HttpOnly; SameSite=Lax; Secure"
        );
        // Browsers take `__Host-` only over https.
        let at = origin("http://127.0.0.1:9443");
        assert_eq!(at.cookie_name(""), "holdpoint-9443");
        assert!(!at.cookie("n", "v", Some(0)).contains("Secure"));
    }

    #[test]
    fn only_our_own_pages_may_post() {
        let at = origin("https://gw.example:443/");
        let sent = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            at.sent(&headers)
        };
        let (own, site) = (("origin", "https://gw.example"), "sec-fetch-site");
        assert!(sent(&[own]));
        assert!(sent(&[own, (site, "same-origin")]));
        assert!(sent(&[(site, "same-origin")]));
        assert!(!sent(&[]));
        assert!(!sent(&[own, own]));
        assert!(!sent(&[own, (site, "same-site")]));
        assert!(!sent(&[("origin", "null"), (site, "same-origin")]));
        assert!(!sent(&[("origin", "https://gw.example.evil")]));
        assert!(!sent(&[("origin", "http://gw.example")]));
        assert!(!sent(&[(site, "cross-site")]));
    }

    #[test]
    fn a_console_lives_at_the_root_of_a_host() {
        for bad in [
            "https://gw.example/holdpoint",
            "https://u:p@gw.example",
            "ftp://gw.example",
            "gw.example",
            "https://gw.example/?a",
        ] {
            assert!(Origin::of(bad).is_err(), "{bad}");
        }
    }
}
