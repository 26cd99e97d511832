//! Where an issuer publishes what: OpenID Connect discovery, then RFC 8414.

use http::StatusCode;
use serde_json::Value;

use super::json;
use crate::http_client::{HttpClient, HttpError, checked};

/// What is used of an issuer's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) jwks_uri: String,
    pub(crate) token_endpoint: Option<String>,
    pub(crate) authorization_endpoint: Option<String>,
    pub(crate) device_authorization_endpoint: Option<String>,
    /// Where a token is given back (RFC 7009).
    pub(crate) revocation_endpoint: Option<String>,
    /// Where people sign out of the issuer itself.
    pub(crate) end_session_endpoint: Option<String>,
    /// What may be asked for, where the issuer says it.
    pub(crate) scopes: Vec<String>,
    /// How clients with a secret prove who they are, where the issuer says it.
    pub(crate) client_auth: Vec<String>,
    /// Redirects name their issuer (RFC 9207).
    pub(crate) names_itself: bool,
}

/// No document of an issuer is larger.
pub(crate) const MAX_BODY: usize = 256 * 1024;

/// Why an issuer's metadata or keys could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiscoveryError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("`{url}` answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("`{url}` is not a metadata document: {why}")]
    Document { url: String, why: &'static str },
    #[error(
        "`{url}` names the issuer {found:?}, but {wanted:?} is configured: they must be equal, \
         to the last slash"
    )]
    Issuer {
        url: String,
        found: String,
        wanted: String,
    },
}

/// Asks each well-known place in turn; the first document found counts.
pub(crate) async fn discover(http: &HttpClient, issuer: &str) -> Result<Metadata, DiscoveryError> {
    let mut last = None;
    for url in places(issuer)? {
        let reply = http.get(&url).await?;
        match reply.status {
            StatusCode::OK => return read(url, &reply.body, issuer),
            status => last = last.or(Some(DiscoveryError::Status { url, status })),
        }
    }
    Err(last.unwrap_or_else(|| HttpError::Url(issuer.to_owned()).into()))
}

fn places(issuer: &str) -> Result<[String; 3], HttpError> {
    let uri = checked(issuer)?;
    if uri.query().is_some() {
        return Err(HttpError::Url(issuer.to_owned()));
    }
    let base = issuer.trim_end_matches('/');
    let path = uri.path().trim_end_matches('/');
    let origin = &base[..base.len() - path.len()];
    Ok([
        format!("{base}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{base}/.well-known/oauth-authorization-server"),
    ])
}

fn read(url: String, body: &[u8], wanted: &str) -> Result<Metadata, DiscoveryError> {
    let broken = |why| DiscoveryError::Document {
        url: url.clone(),
        why,
    };
    let document = json::object(body).map_err(|_| broken("not a JSON object"))?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let found = text("issuer").ok_or_else(|| broken("no `issuer`"))?;
    if found != wanted {
        return Err(DiscoveryError::Issuer {
            url: url.clone(),
            found: found.chars().take(200).collect(),
            wanted: wanted.to_owned(),
        });
    }
    // A document fetched over https must not lead to a socket on this machine.
    let endpoint = |name: &str| -> Result<Option<String>, DiscoveryError> {
        let Some(address) = text(name) else {
            return Ok(None);
        };
        checked(address)?;
        if wanted.starts_with("https:") && !address.starts_with("https:") {
            return Err(HttpError::Url(address.to_owned()).into());
        }
        Ok(Some(address.to_owned()))
    };
    let words = |name: &str| -> Vec<String> {
        let all = document.get(name).and_then(Value::as_array);
        let all = all.into_iter().flatten().filter_map(Value::as_str);
        all.map(str::to_owned).collect()
    };
    Ok(Metadata {
        jwks_uri: endpoint("jwks_uri")?.ok_or_else(|| broken("no `jwks_uri`"))?,
        token_endpoint: endpoint("token_endpoint")?,
        authorization_endpoint: endpoint("authorization_endpoint")?,
        device_authorization_endpoint: endpoint("device_authorization_endpoint")?,
        // For leaving, not for coming in: one that cannot be used is as good as none.
        revocation_endpoint: endpoint("revocation_endpoint").ok().flatten(),
        end_session_endpoint: endpoint("end_session_endpoint").ok().flatten(),
        scopes: words("scopes_supported"),
        client_auth: words("token_endpoint_auth_methods_supported"),
        names_itself: document.get("authorization_response_iss_parameter_supported")
            == Some(&Value::Bool(true)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_8414_is_tried_with_the_path_inserted_and_appended() {
        assert_eq!(
            places("https://acme.example/oauth2/a1").unwrap(),
            [
                "https://acme.example/oauth2/a1/.well-known/openid-configuration",
                "https://acme.example/.well-known/oauth-authorization-server/oauth2/a1",
                "https://acme.example/oauth2/a1/.well-known/oauth-authorization-server",
            ]
        );
    }

    #[test]
    fn an_issuer_that_differs_by_a_slash_is_another_issuer() {
        let body = br#"{"issuer":"https://a.example/","jwks_uri":"https://a.example/keys"}"#;
        let url = "https://a.example/.well-known/openid-configuration".to_owned();
        assert!(matches!(
            read(url.clone(), body, "https://a.example"),
            Err(DiscoveryError::Issuer { .. })
        ));
        assert!(read(url, body, "https://a.example/").is_ok());
    }

    #[test]
    fn keys_of_an_https_issuer_are_fetched_over_https() {
        for uri in [
            "http://127.0.0.1/keys",
            "http://a.example/keys",
            "file:///k",
        ] {
            let body = format!(r#"{{"issuer":"https://a.example","jwks_uri":"{uri}"}}"#);
            assert!(read(String::new(), body.as_bytes(), "https://a.example").is_err());
        }
    }
}
