//! Speaks OpenID Connect with one issuer, for `holdpoint login` and for the console: the code
//! flow's URL and exchange, the device grant, refresh. What the issuer says of itself comes
//! from our own strict discovery.
//!
//! A client on somebody's machine is public: PKCE stands for a secret that it could not
//! keep. The console may be a confidential one, and uses PKCE as well.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use holdpoint_core::secret::Secret;
use http::header;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreDeviceAuthorizationResponse, CoreJsonWebKeySet,
    CoreJwsSigningAlgorithm, CoreTokenResponse,
};
use openidconnect::url::{Url, form_urlencoded};
use openidconnect::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    DeviceAuthorizationUrl, ErrorResponse, HttpRequest, HttpResponse, IssuerUrl, JsonWebKeySet,
    JsonWebKeySetUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, RefreshToken, RequestTokenError, Scope, TokenResponse as _, TokenUrl,
};
use serde_json::Value;

use crate::http_client::{HttpClient, HttpError};
use crate::identity::{MAX_BODY, Metadata, discover};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Where nothing says how long a token is good.
const SOME_TIME: u64 = 300;

/// What an ID token may be signed with: any algorithm whose key is the issuer's alone.
const SIGNED_WITH: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// What is said to an issuer of who asks, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    /// Sent as `audience` and `resource`, where there is one.
    pub(crate) audience: Option<String>,
    /// Of the issuer's TLS.
    pub(crate) ca: Option<PathBuf>,
    /// Of a confidential client.
    pub(crate) secret: Option<Secret>,
    /// Whether to ask for a refresh token.
    pub(crate) offline: bool,
}

/// Why an issuer gave no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The issuer said no, with its code.
    #[error("issuer `{issuer}` refused: {code}{text}")]
    Refused {
        issuer: String,
        code: String,
        text: String,
    },
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Never with what it answered: a token could be in it.
    #[error("issuer `{issuer}` answered something that is no token: {why}")]
    Answer { issuer: String, why: String },
}

/// A token, and what came with it.
pub(crate) struct Given {
    pub(crate) access: Secret,
    pub(crate) refresh: Option<Secret>,
    pub(crate) issued: u64,
    pub(crate) expires: u64,
    id_token: Option<openidconnect::core::CoreIdToken>,
    /// When the person signed in, in Unix seconds, as a good ID token says.
    pub(crate) auth_time: Option<u64>,
    /// For people to read.
    pub(crate) who: Option<String>,
}

/// One issuer, as one client.
pub(crate) struct Provider {
    client: Client,
    metadata: Metadata,
    http: Speaks,
}

/// How a sign-in is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ask<'a> {
    /// Passed on, such as `consent` or `login`.
    pub(crate) prompt: Option<&'a str>,
    /// How long ago at most the person has signed in; otherwise they are to do it again.
    pub(crate) max_age: Option<Duration>,
}

/// A sign-in in a browser that has begun.
pub(crate) struct Begun {
    pub(crate) url: Url,
    pub(crate) state: CsrfToken,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
    redirect: RedirectUrl,
}

impl Provider {
    pub(crate) async fn open(client: &Client) -> anyhow::Result<Self> {
        let http = HttpClient::new(client.ca.as_deref(), MAX_BODY)?;
        let metadata = discover(&http, &client.issuer)
            .await
            .with_context(|| format!("issuer `{}`", client.issuer))?;
        Ok(Self {
            client: client.clone(),
            metadata,
            http: Speaks(http),
        })
    }

    pub(crate) fn has_browser_flow(&self) -> bool {
        self.metadata.authorization_endpoint.is_some()
    }

    /// Whether redirects must name the issuer.
    pub(crate) fn names_itself(&self) -> bool {
        self.metadata.names_itself
    }

    pub(crate) fn begin(
        &self,
        scopes: &[String],
        redirect: String,
        ask: Ask<'_>,
    ) -> anyhow::Result<Begun> {
        let endpoint = self.metadata.authorization_endpoint.clone();
        let endpoint = endpoint.context("the issuer has no authorization endpoint: `--device`?")?;
        let redirect = RedirectUrl::new(redirect)?;
        let client = self
            .asking()?
            .set_auth_uri(AuthUrl::new(endpoint)?)
            .set_redirect_uri(redirect.clone());
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .set_pkce_challenge(challenge)
            .add_scopes(self.words(scopes).into_iter().map(Scope::new));
        if let Some(audience) = &self.client.audience {
            request = request
                .add_extra_param("audience", audience.clone())
                .add_extra_param("resource", audience.clone());
        }
        if let Some(prompt) = ask.prompt {
            request = request.add_extra_param("prompt", prompt.to_owned());
        }
        if let Some(max_age) = ask.max_age {
            request = request.set_max_age(max_age);
        }
        let (url, state, nonce) = request.url();
        Ok(Begun {
            url,
            state,
            nonce,
            verifier,
            redirect,
        })
    }

    /// Redeems the code that came back, and checks whose it is.
    pub(crate) async fn finish(&self, begun: Begun, code: String) -> anyhow::Result<Given> {
        let client = self.asking()?.set_token_uri(self.token_url()?);
        let mut request = client
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(begun.verifier)
            .set_redirect_uri(std::borrow::Cow::Owned(begun.redirect));
        if let Some(audience) = &self.client.audience {
            request = request.add_extra_param("resource", audience.clone());
        }
        let answer = request.request_async(&self.http).await;
        let given = self.given(answer.map_err(|error| self.fault(error))?);
        self.checked(given, Some(&begun.nonce)).await
    }

    pub(crate) async fn device(
        &self,
        scopes: &[String],
    ) -> anyhow::Result<CoreDeviceAuthorizationResponse> {
        let endpoint = self.metadata.device_authorization_endpoint.clone();
        let endpoint = endpoint.with_context(|| {
            format!(
                "issuer `{}` has no device grant: log in without `--device`",
                self.client.issuer
            )
        })?;
        let client = self
            .asking()?
            .set_device_authorization_url(DeviceAuthorizationUrl::new(endpoint)?);
        let mut request = client
            .exchange_device_code()
            .add_scopes(self.words(scopes).into_iter().map(Scope::new));
        if let Some(audience) = &self.client.audience {
            request = request
                .add_extra_param("audience", audience.clone())
                .add_extra_param("resource", audience.clone());
        }
        let answer = request.request_async(&self.http).await;
        Ok(answer.map_err(|error| self.fault(error))?)
    }

    /// Asks until somebody has signed in, or the device's code has expired.
    pub(crate) async fn poll(
        &self,
        device: &CoreDeviceAuthorizationResponse,
    ) -> anyhow::Result<Given> {
        let client = self.asking()?.set_token_uri(self.token_url()?);
        // The first question would come before anyone could have answered.
        tokio::time::sleep(device.interval()).await;
        let answer = client
            .exchange_device_access_token(device)
            .request_async(&self.http, tokio::time::sleep, None)
            .await;
        let given = self.given(answer.map_err(|error| self.fault(error))?);
        self.checked(given, None).await
    }

    pub(crate) async fn refresh(&self, token: &Secret, scopes: &[String]) -> anyhow::Result<Given> {
        let token = String::from_utf8_lossy(token.expose()).into_owned();
        let client = self.asking()?.set_token_uri(self.token_url()?);
        let token = RefreshToken::new(token);
        let mut request = client
            .exchange_refresh_token(&token)
            .add_scopes(self.words(scopes).into_iter().map(Scope::new));
        if let Some(audience) = &self.client.audience {
            request = request.add_extra_param("resource", audience.clone());
        }
        let answer = request.request_async(&self.http).await;
        Ok(self.given(answer.map_err(|error| self.fault(error))?))
    }

    /// Gives an access token back, where the issuer takes it. Gives whether it did.
    pub(crate) async fn revoke(&self, access: &Secret) -> anyhow::Result<bool> {
        let Some(endpoint) = &self.metadata.revocation_endpoint else {
            return Ok(false);
        };
        let request = self.giving_back(endpoint, access)?;
        let answer = self.http.0.send(request, TIMEOUT).await?;
        // Tokens that the issuer does not keep itself, it cannot take back.
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if said.get("error").and_then(Value::as_str) == Some("unsupported_token_type") {
            return Ok(false);
        }
        if !answer.status.is_success() {
            anyhow::bail!(
                "issuer `{}` answered {} to a token that was given back",
                self.client.issuer,
                answer.status
            );
        }
        Ok(true)
    }

    fn giving_back(&self, endpoint: &str, access: &Secret) -> anyhow::Result<http::Request<Bytes>> {
        let token = std::str::from_utf8(access.expose()).context("the token is no text")?;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token)
            .append_pair("token_type_hint", "access_token");
        let mut request = http::Request::post(crate::http_client::checked(endpoint)?)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        match &self.client.secret {
            None => {
                form.append_pair("client_id", &self.client.client_id);
            }
            Some(secret) => {
                let secret = std::str::from_utf8(secret.expose())
                    .context("the client's secret is no text")?;
                if self.posts_secret() {
                    form.append_pair("client_id", &self.client.client_id)
                        .append_pair("client_secret", secret);
                } else {
                    let encoded = |text: &str| -> String {
                        form_urlencoded::byte_serialize(text.as_bytes()).collect()
                    };
                    let pair = format!("{}:{}", encoded(&self.client.client_id), encoded(secret));
                    let basic = format!("Basic {}", STANDARD.encode(pair));
                    request = request.header(header::AUTHORIZATION, basic);
                }
            }
        }
        Ok(request.body(Bytes::from(form.finish()))?)
    }

    /// Where somebody signs out of the issuer itself.
    pub(crate) fn sign_out_url(&self) -> Option<String> {
        let mut url = Url::parse(self.metadata.end_session_endpoint.as_ref()?).ok()?;
        url.query_pairs_mut()
            .append_pair("client_id", &self.client.client_id);
        Some(url.into())
    }

    /// Basic is what every server must have, unless it says what it has.
    fn posts_secret(&self) -> bool {
        let has = |wanted: &str| self.metadata.client_auth.iter().any(|way| way == wanted);
        has("client_secret_post") && !has("client_secret_basic")
    }

    fn asking(&self) -> anyhow::Result<CoreClient> {
        let client = CoreClient::new(
            ClientId::new(self.client.client_id.clone()),
            IssuerUrl::new(self.client.issuer.clone())?,
            JsonWebKeySet::default(),
        )
        .disable_openid_scope();
        let Some(secret) = &self.client.secret else {
            return Ok(client);
        };
        let secret =
            std::str::from_utf8(secret.expose()).context("the client's secret is no text")?;
        Ok(client
            .set_client_secret(ClientSecret::new(secret.to_owned()))
            .set_auth_type(if self.posts_secret() {
                AuthType::RequestBody
            } else {
                AuthType::BasicAuth
            }))
    }

    fn token_url(&self) -> anyhow::Result<TokenUrl> {
        let endpoint = self.metadata.token_endpoint.clone();
        let endpoint = endpoint
            .with_context(|| format!("issuer `{}` has no token endpoint", self.client.issuer))?;
        Ok(TokenUrl::new(endpoint)?)
    }

    /// With what tells who signed in and lets us go on later, as far as the issuer has it.
    fn words(&self, scopes: &[String]) -> Vec<String> {
        let has = |word: &str| {
            let all = &self.metadata.scopes;
            all.is_empty() || all.iter().any(|have| have == word)
        };
        let plain = ["openid", "offline_access"];
        let mut words: Vec<String> = plain
            .iter()
            .filter(|word| has(word) && (self.client.offline || **word != "offline_access"))
            .map(|word| (*word).to_owned())
            .collect();
        words.extend_from_slice(scopes);
        words
    }

    fn given(&self, answer: CoreTokenResponse) -> Given {
        let issued = unix();
        let access = answer.access_token().secret().clone();
        let claims = claims(&access);
        let expires = claims
            .as_ref()
            .and_then(|claims| claims.get("exp")?.as_u64());
        let lasts = answer.expires_in().map(|lasts| issued + lasts.as_secs());
        let who = claims.as_ref().and_then(|claims| {
            let name = ["email", "preferred_username", "sub"];
            name.iter().find_map(|name| claims.get(*name)?.as_str())
        });
        Given {
            who: who.map(str::to_owned),
            refresh: answer
                .refresh_token()
                .map(|token| token.secret().clone().into()),
            id_token: answer.id_token().cloned(),
            auth_time: None,
            // Whichever says that it ends first.
            expires: match (expires, lasts) {
                (Some(a), Some(b)) => a.min(b),
                (one, other) => one.or(other).unwrap_or(issued + SOME_TIME),
            },
            access: access.into(),
            issued,
        }
    }

    /// An ID token, where there is one, must be for us, from this issuer, and of this sign-in.
    async fn checked(&self, mut given: Given, nonce: Option<&Nonce>) -> anyhow::Result<Given> {
        let Some(token) = &given.id_token else {
            return Ok(given);
        };
        let url = JsonWebKeySetUrl::new(self.metadata.jwks_uri.clone())?;
        let keys = CoreJsonWebKeySet::fetch_async(&url, &self.http)
            .await
            .with_context(|| format!("cannot read the keys of issuer `{}`", self.client.issuer))?;
        let client = CoreClient::new(
            ClientId::new(self.client.client_id.clone()),
            IssuerUrl::new(self.client.issuer.clone())?,
            keys,
        );
        let verifier = client.id_token_verifier().set_allowed_algs(SIGNED_WITH);
        let good = match nonce {
            Some(nonce) => token.claims(&verifier, nonce),
            // The device grant has no nonce.
            None => token.claims(&verifier, |_: Option<&Nonce>| Ok(())),
        };
        let claims = good.with_context(|| {
            format!(
                "the ID token of issuer `{}` is not good; nothing was kept",
                self.client.issuer
            )
        })?;
        let signed_in = claims.auth_time().map(|at| at.timestamp());
        given.auth_time = signed_in.and_then(|at| u64::try_from(at).ok());
        Ok(given)
    }

    fn fault<T: ErrorResponse + Code + 'static>(
        &self,
        error: RequestTokenError<HttpError, T>,
    ) -> Fault {
        let issuer = self.client.issuer.clone();
        match error {
            RequestTokenError::ServerResponse(answer) => Fault::Refused {
                issuer,
                code: plain(&answer.code()),
                text: answer
                    .text()
                    .map(|text| format!(" ({})", plain(text)))
                    .unwrap_or_default(),
            },
            RequestTokenError::Request(error) => error.into(),
            RequestTokenError::Parse(error, _) => Fault::Answer {
                issuer,
                why: format!("at `{}`", error.path()),
            },
            RequestTokenError::Other(why) => Fault::Answer {
                issuer,
                why: plain(&why),
            },
        }
    }
}

/// The two parts of an error that are shown.
trait Code {
    fn code(&self) -> String;
    fn text(&self) -> Option<&str>;
}

impl<T: openidconnect::ErrorResponseType + std::fmt::Display> Code
    for openidconnect::StandardErrorResponse<T>
{
    fn code(&self) -> String {
        self.error().to_string()
    }

    fn text(&self) -> Option<&str> {
        self.error_description().map(String::as_str)
    }
}

/// What an issuer says goes to a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

/// Unverified, to be shown and to notice an old token; nothing is decided by it.
pub(crate) fn claims(token: &str) -> Option<Value> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

pub(crate) fn unix() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Our client, as `openidconnect` wants it.
struct Speaks(HttpClient);

impl<'c> AsyncHttpClient<'c> for Speaks {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let answer = self.0.send(request.map(Bytes::from), TIMEOUT).await?;
            let mut response = HttpResponse::new(answer.body.to_vec());
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::{get, post};
    use serde_json::json;

    use super::*;

    /// What came to the revocation endpoint: `Authorization` and the form.
    type Came = Arc<Mutex<Vec<(String, String)>>>;

    /// An issuer whose revocation endpoint answers so.
    async fn issuer(
        auth: &'static str,
        status: u16,
        body: &'static str,
    ) -> (String, Came, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let metadata = json!({
            "issuer": issuer, "jwks_uri": format!("{issuer}/keys"),
            "revocation_endpoint": format!("{issuer}/revoke"),
            "end_session_endpoint": format!("{issuer}/out?x=1"),
            "token_endpoint_auth_methods_supported": [auth],
        });
        let came = Came::default();
        let seen = Arc::clone(&came);
        let revoke = move |headers: HeaderMap, form: String| async move {
            let basic = headers.get("authorization");
            let basic = basic.map_or("", |value| value.to_str().unwrap());
            seen.lock().unwrap().push((basic.to_owned(), form));
            (StatusCode::from_u16(status).unwrap(), body)
        };
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(move || async move { axum::Json(metadata) }),
            )
            .route("/revoke", post(revoke));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        (issuer, came, server)
    }

    async fn provider(issuer: &str, secret: Option<&str>) -> Provider {
        let client = Client {
            issuer: issuer.to_owned(),
            client_id: "web:1".to_owned(),
            audience: None,
            ca: None,
            secret: secret.map(|secret| secret.to_owned().into()),
            offline: false,
        };
        Provider::open(&client).await.unwrap()
    }

    #[tokio::test]
    async fn a_token_goes_back_with_what_proves_the_client() {
        let token: Secret = "a.b.c".to_owned().into();
        for (auth, secret, basic, form) in [
            ("none", None, "", "client_id=web%3A1"),
            (
                "client_secret_post",
                Some("s&t"),
                "",
                "client_id=web%3A1&client_secret=s%26t",
            ),
            // Both parts encoded before they are joined (RFC 6749 section 2.3.1).
            (
                "client_secret_basic",
                Some("s&t"),
                "Basic d2ViJTNBMTpzJTI2dA==",
                "",
            ),
        ] {
            let (issuer, came, server) = issuer(auth, 200, "").await;
            let provider = provider(&issuer, secret).await;
            assert!(provider.revoke(&token).await.unwrap());
            let all = came.lock().unwrap().clone();
            let [(had, said)] = &all[..] else {
                panic!("{all:?}")
            };
            assert_eq!(had, basic);
            let wanted = format!("token=a.b.c&token_type_hint=access_token&{form}");
            assert_eq!(*said, wanted.trim_end_matches('&'));
            let out = provider.sign_out_url().unwrap();
            assert_eq!(out, format!("{issuer}/out?x=1&client_id=web%3A1"));
            server.abort();
        }
    }

    #[tokio::test]
    async fn an_issuer_that_cannot_take_it_back_is_no_fault_and_one_that_fails_is() {
        let token: Secret = "a.b.c".to_owned().into();
        let (url, _, _server) = issuer("none", 400, r#"{"error":"unsupported_token_type"}"#).await;
        assert!(!provider(&url, None).await.revoke(&token).await.unwrap());
        let (url, _, _server) = issuer("none", 503, "later").await;
        let error = provider(&url, None).await.revoke(&token).await.unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
        assert!(!error.to_string().contains("a.b.c"), "{error}");
    }
}
