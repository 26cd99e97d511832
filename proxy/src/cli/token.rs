//! `holdpoint token`: an access token on standard output, and nothing else there.
//!
//! Where it comes from, first that fits: `--user` at the development issuer;
//! `HOLDPOINT_TOKEN_FILE` or `HOLDPOINT_TOKEN`; client credentials (`HOLDPOINT_CLIENT_ID` with
//! `HOLDPOINT_CLIENT_SECRET_FILE` or `HOLDPOINT_CLIENT_SECRET`) at the issuer; what an earlier
//! `holdpoint login` left, renewed where it is near its end.
//! Exit code 3 means that a person has to log in, so that an agent can tell it from a fault.
//!
//! Limits: a client secret goes in the request's body; its tokens are not kept.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use holdpoint_core::config::SecretRef;
use holdpoint_core::secret::Secret;
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::client::LoginNeeded;
use super::login::{Purpose, Wanted, Where, cached, claims, is_dev, issuer_in, unix};
use crate::http_client::HttpClient;
use crate::identity::{MAX_BODY, discover};
use crate::secrets;

/// A token that ends within this many seconds is of no use to whoever asked.
const MIN_LEFT: u64 = 10;

const LOGIN_NEEDED: u8 = 3;

/// Where no issuer and no configuration is named, one that lies here says which.
const HERE: &str = "holdpoint.toml";

#[derive(Debug, Clone, Args)]
pub(super) struct TokenArgs {
    /// Identity of the development issuer to ask for
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Scope to ask for, such as `holdpoint.review`; may be given again
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    format: Format,
    /// Print JSON, as `--format json` does
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// A token to decide with, of `holdpoint login --review`
    #[arg(long, conflicts_with = "user")]
    review: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The token and a line end
    Raw,
    /// With the time it expires
    Json,
    /// For a kubeconfig's `exec` (`client.authentication.k8s.io/v1`)
    ExecCredential,
}

/// What came of asking.
enum Found {
    Token(Secret),
    /// What a person must do.
    LoginNeeded(String),
}

impl TokenArgs {
    /// Prints the token.
    ///
    /// # Errors
    /// The issuer cannot be asked, or refuses.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        match runtime.block_on(self.find())? {
            Found::Token(token) => {
                let text = std::str::from_utf8(token.expose()).context("the token is not text")?;
                let left = seconds_left(text);
                if left.is_some_and(|left| left < MIN_LEFT) {
                    eprintln!(
                        "error: the token has expired\nhint: log in again, or set a fresh one"
                    );
                    return Ok(ExitCode::from(LOGIN_NEEDED));
                }
                let format = if self.json { Format::Json } else { self.format };
                writeln!(std::io::stdout(), "{}", render(text, format)?)?;
                Ok(ExitCode::SUCCESS)
            }
            Found::LoginNeeded(how) => {
                eprintln!("error: login needed: {how}");
                Ok(ExitCode::from(LOGIN_NEEDED))
            }
        }
    }

    async fn find(&self) -> anyhow::Result<Found> {
        // Asking for somebody by name means the development issuer, whatever else is set.
        if self.user.is_none()
            && let Some(token) = given("HOLDPOINT_TOKEN")?
        {
            return Ok(Found::Token(token));
        }
        if self.user.is_none() && std::env::var_os("HOLDPOINT_CLIENT_ID").is_none() {
            return self.kept().await;
        }
        let Some(issuer) = self.issuer()? else {
            return Ok(Found::LoginNeeded(
                "no issuer is named\nhint: `--issuer URL` or `-c FILE` does".to_owned(),
            ));
        };
        let scope = self.scope.join(" ");
        let mut form = form_urlencoded::Serializer::new();
        if let Some(user) = &self.user {
            if !is_dev(&issuer) {
                bail!("`--user` is for the development issuer, and `{issuer}` is not one");
            }
            form.pair("grant_type", "urn:holdpoint:dev")
                .pair("user", user);
        } else {
            let client =
                std::env::var("HOLDPOINT_CLIENT_ID").context("HOLDPOINT_CLIENT_ID is not text")?;
            let secret = given("HOLDPOINT_CLIENT_SECRET")?.context(
                "HOLDPOINT_CLIENT_ID is set without its secret; set HOLDPOINT_CLIENT_SECRET_FILE",
            )?;
            let secret =
                std::str::from_utf8(secret.expose()).context("the client secret is not text")?;
            form.pair("grant_type", "client_credentials")
                .pair("client_id", &client)
                .pair("client_secret", secret);
        }
        if !scope.is_empty() {
            form.pair("scope", &scope);
        }
        request(&issuer, form.finish()).await
    }

    fn issuer(&self) -> anyhow::Result<Option<String>> {
        if let Some(issuer) = &self.place.issuer {
            return Ok(Some(issuer.clone()));
        }
        let here = Path::new(HERE);
        let config = self.place.config.as_deref();
        let config = config.or_else(|| here.exists().then_some(here));
        config.map(issuer_in).transpose()
    }

    /// What an earlier login left.
    async fn kept(&self) -> anyhow::Result<Found> {
        let scopes: Vec<String> = self
            .scope
            .iter()
            .flat_map(|scope| scope.split_ascii_whitespace())
            .map(str::to_owned)
            .collect();
        let decides = self.review || scopes.iter().any(|scope| scope == "holdpoint.review");
        let server = self.place.server();
        let wanted = Wanted {
            server: server.as_deref(),
            issuer: self.place.issuer.as_deref(),
            client_id: self.place.client_id.as_deref(),
            purpose: if decides {
                Purpose::Review
            } else {
                Purpose::Connect
            },
            scopes: &scopes,
        };
        match cached(&wanted).await {
            Ok(token) => Ok(Found::Token(token)),
            Err(error) => match error.downcast::<LoginNeeded>() {
                Ok(LoginNeeded(how)) => Ok(Found::LoginNeeded(how)),
                Err(error) => Err(error),
            },
        }
    }
}

async fn request(issuer: &str, form: String) -> anyhow::Result<Found> {
    let http = HttpClient::new(None, MAX_BODY)?;
    let endpoint = discover(&http, issuer)
        .await?
        .token_endpoint
        .with_context(|| format!("issuer `{issuer}` has no token endpoint"))?;
    let reply = http.post_form(&endpoint, form).await?;
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Answer {
        access_token: Option<String>,
        error: Option<String>,
        error_description: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(&reply.body).unwrap_or_default();
    match (reply.status.as_u16(), answer.access_token) {
        (200, Some(token)) => Ok(Found::Token(token.into())),
        (status, _) => {
            let error = answer
                .error
                .unwrap_or_else(|| format!("it answered {status}"));
            let why = answer.error_description.unwrap_or_default();
            let text = format!("issuer `{issuer}` gave no token: {error} {why}");
            // What an issuer says goes to a terminal.
            let text: String = text.chars().filter(|c| !c.is_control()).take(400).collect();
            match error.as_str() {
                "invalid_client" | "invalid_grant" | "unauthorized_client" => {
                    Ok(Found::LoginNeeded(text))
                }
                _ => bail!("{}", text.trim_end()),
            }
        }
    }
}

/// The value of `NAME_FILE`'s file or of `NAME`.
fn given(name: &str) -> anyhow::Result<Option<Secret>> {
    let file = std::env::var_os(format!("{name}_FILE"));
    let place = match file {
        Some(path) => SecretRef::File(path.into()),
        None if std::env::var_os(name).is_some() => SecretRef::Env(name.to_owned()),
        None => return Ok(None),
    };
    Ok(Some(secrets::resolve(&place)?))
}

fn expiry(token: &str) -> Option<u64> {
    claims(token)?.get("exp")?.as_u64()
}

fn seconds_left(token: &str) -> Option<u64> {
    Some(expiry(token)?.saturating_sub(unix()))
}

fn render(token: &str, format: Format) -> anyhow::Result<String> {
    let expires = expiry(token)
        .and_then(|at| OffsetDateTime::from_unix_timestamp(i64::try_from(at).ok()?).ok())
        .map(|at| at.format(&Rfc3339))
        .transpose()?;
    let mut status = json!({ "token": token });
    if let Some(at) = expires {
        status["expirationTimestamp"] = at.into();
    }
    let text = match format {
        Format::Raw => token.to_owned(),
        Format::Json => serde_json::to_string(&status)?,
        Format::ExecCredential => serde_json::to_string(&json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": status,
        }))?,
    };
    Ok(text)
}

/// Forms as `application/x-www-form-urlencoded` has them.
mod form_urlencoded {
    use std::fmt::Write as _;

    use zeroize::Zeroize as _;

    /// Collects pairs; what it holds is wiped unless it is finished.
    pub(super) struct Serializer(String);

    impl Serializer {
        pub(super) fn new() -> Self {
            Self(String::new())
        }

        pub(super) fn pair(&mut self, name: &str, value: &str) -> &mut Self {
            if !self.0.is_empty() {
                self.0.push('&');
            }
            escape(&mut self.0, name);
            self.0.push('=');
            escape(&mut self.0, value);
            self
        }

        pub(super) fn finish(mut self) -> String {
            std::mem::take(&mut self.0)
        }
    }

    impl Drop for Serializer {
        fn drop(&mut self) {
            self.0.zeroize();
        }
    }

    fn escape(out: &mut String, text: &str) {
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    use super::*;

    fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn an_exec_credential_is_what_kubectl_reads() {
        let token = token(&json!({ "exp": 1_700_000_000 }));
        let text = render(&token, Format::ExecCredential).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["apiVersion"], "client.authentication.k8s.io/v1");
        assert_eq!(read["kind"], "ExecCredential");
        assert_eq!(read["status"]["token"], token);
        assert_eq!(
            read["status"]["expirationTimestamp"],
            "2023-11-14T22:13:20Z"
        );
    }

    #[test]
    fn raw_output_is_the_token_alone_whatever_it_is() {
        for text in ["opaque", "a.b.c", "hp_123"] {
            assert_eq!(render(text, Format::Raw).unwrap(), text);
        }
    }

    #[test]
    fn a_secret_with_odd_letters_survives_the_form() {
        let mut form = form_urlencoded::Serializer::new();
        form.pair("a", "x&y=z +%é").pair("b", "1");
        assert_eq!(form.finish(), "a=x%26y%3Dz%20%2B%25%C3%A9&b=1");
    }
}
