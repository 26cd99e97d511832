//! `holdpoint login` and `logout`: a person signs in at their issuer, once.
//!
//! In a browser on this machine (code flow, PKCE, loopback redirect), or with `--device` in
//! one anywhere else. What comes of it is kept in [`cache`] and refreshed by [`kept`] when
//! a command needs it.
//!
//! A token is for connecting or for deciding, never for both: what an agent on this
//! machine can read must not approve what that agent asks for.

mod browser;
mod cache;
mod kept;
mod way;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use holdpoint_core::approval::SignIn;
use holdpoint_core::source::Span;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(super) use cache::Purpose;
use cache::{Cache, Kept};
pub(super) use kept::{Wanted, cached};
use way::Way;
pub(super) use way::{Where, is_dev, issuer_in};

use super::{Outcome, runtime};
use crate::oidc::{Ask, Given, Provider, plain};
pub(super) use crate::oidc::{claims, unix};

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    #[command(flatten)]
    place: Where,
    /// Show a code to be entered in a browser anywhere, instead of opening one here
    #[arg(long, conflicts_with_all = ["port", "no_browser", "prompt", "max_age"])]
    device: bool,
    /// Sign in to decide on held commands; otherwise to connect
    #[arg(long)]
    review: bool,
    /// Scope to ask for in place of the usual one; may be given again
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Sent as `audience` and `resource`, where the issuer must be told what a token is for
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// Port for the browser to come back to, where the issuer knows only one (default: any)
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Passed on, such as `consent` or `login`
    #[arg(long, value_name = "WORD")]
    prompt: Option<String>,
    /// Have the issuer ask you again if you signed in longer ago, such as `5m`
    #[arg(long, value_name = "SPAN", value_parser = span)]
    max_age: Option<Duration>,
    /// Only print the URL
    #[arg(long)]
    no_browser: bool,
    /// Print JSON: a line with where to sign in, and one when it is done
    #[arg(long)]
    json: bool,
    /// Remove what is kept, as `holdpoint logout` does
    #[arg(long, conflicts_with_all = ["device", "review"])]
    forget: bool,
}

#[derive(Debug, Args)]
pub(super) struct LogoutArgs {
    #[command(flatten)]
    place: Where,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl LoginArgs {
    /// # Errors
    /// Nobody signed in, or what came of it cannot be kept.
    pub(super) fn run(self) -> Outcome {
        if self.forget {
            return runtime()?.block_on(forget(&self.place, self.json));
        }
        runtime()?.block_on(self.login())
    }

    async fn login(self) -> Outcome {
        // A place that cannot be used is found before anyone types a password.
        let cache = Cache::find()?;
        drop(cache.lock().await?);
        cache.read()?;

        let mut way = self.place.way().await?;
        if self.audience.is_some() {
            way.audience.clone_from(&self.audience);
        }
        let (purpose, scopes) = self.scopes(&way)?;
        let provider = Provider::open(&way.client()).await?;
        if purpose == Purpose::Review {
            eprintln!(
                "note: whatever runs as you on this machine can decide with this token; \
                 keep agents on another account"
            );
        }
        let given = if self.device {
            self.device(&provider, &scopes).await?
        } else if provider.has_browser_flow() {
            self.browser(&provider, &way, &scopes).await?
        } else {
            bail!(
                "issuer `{}` has no browser flow: add `--device`",
                way.issuer
            );
        };
        if let Some(max_age) = self.max_age {
            recent(&given, max_age)?;
        }
        let kept = keep(way, purpose, scopes, given);
        let done = told(&kept, self.json)?;
        cache.lock().await?.keep(kept)?;
        writeln!(std::io::stdout(), "{done}")?;
        Ok(ExitCode::SUCCESS)
    }

    fn scopes(&self, way: &Way) -> anyhow::Result<(Purpose, Vec<String>)> {
        let mut scopes: Vec<String> = self
            .scope
            .iter()
            .flat_map(|scope| scope.split_ascii_whitespace())
            .filter(|scope| !["openid", "offline_access"].contains(scope))
            .map(str::to_owned)
            .collect();
        let decides = self.review || scopes.contains(&way.review_scope);
        if scopes.is_empty() {
            scopes.push(match decides {
                true => way.review_scope.clone(),
                false => way.connect_scope.clone(),
            });
        }
        if decides && scopes.contains(&way.connect_scope) {
            bail!(
                "one token may not both connect and decide: run `holdpoint login` and \
                 `holdpoint login --review`"
            );
        }
        scopes.sort();
        scopes.dedup();
        let purpose = if decides {
            Purpose::Review
        } else {
            Purpose::Connect
        };
        Ok((purpose, scopes))
    }

    async fn browser(
        &self,
        provider: &Provider,
        way: &Way,
        scopes: &[String],
    ) -> anyhow::Result<Given> {
        let callback = browser::Callback::listen(self.port).await?;
        let ask = Ask {
            prompt: self.prompt.as_deref(),
            max_age: self.max_age,
        };
        let begun = provider.begin(scopes, callback.redirect_uri(), ask)?;
        if self.json {
            say(&json!({ "event": "open", "url": begun.url.as_str() }))?;
        } else {
            eprintln!(
                "Sign in at this address, in a browser on this machine:\n\n  {}\n",
                begun.url
            );
        }
        if !self.no_browser && std::io::stderr().is_terminal() && browser::open(begun.url.as_str())
        {
            eprintln!("(a browser opens)");
        }
        let code = callback
            .code(begun.state.clone(), &way.issuer, provider.names_itself())
            .await?;
        provider.finish(begun, code).await
    }

    async fn device(&self, provider: &Provider, scopes: &[String]) -> anyhow::Result<Given> {
        let device = provider.device(scopes).await?;
        let url = plain(device.verification_uri().as_str());
        let code = plain(device.user_code().secret());
        let whole = device.verification_uri_complete();
        let whole = whole.map(|whole| plain(whole.secret()));
        if self.json {
            say(&json!({
                "event": "open", "url": url, "url_complete": whole, "user_code": code,
                "seconds": device.expires_in().as_secs(),
            }))?;
        } else {
            eprintln!(
                "Sign in at this address, in any browser:\n\n  {url}\n\nand enter the code\n\n  {code}\n"
            );
            if let Some(whole) = whole {
                eprintln!("or open this, and compare the code:\n\n  {whole}\n");
            }
        }
        tokio::select! {
            given = provider.poll(&device) => given,
            _ = tokio::signal::ctrl_c() => bail!("stopped; nobody signed in"),
        }
    }
}

impl LogoutArgs {
    /// # Errors
    /// The file cannot be read or replaced.
    pub(super) fn run(self) -> Outcome {
        runtime()?.block_on(forget(&self.place, self.json))
    }
}

/// Removes what is kept for this place; everything, where none is named.
async fn forget(place: &Where, json: bool) -> Outcome {
    let cache = Cache::find()?;
    let locked = cache.lock().await?;
    let mut all = locked.read()?;
    let before = all.len();
    all.retain(|kept| !place.names(kept));
    let removed = before - all.len();
    locked.write(all)?;
    if json {
        say(&json!({ "removed": removed }))?;
    } else {
        eprintln!("{removed} token(s) removed from this machine");
    }
    Ok(ExitCode::SUCCESS)
}

fn span(text: &str) -> Result<Duration, String> {
    Span::parse(text).map(|Span(time)| time)
}

/// Whether the access token, which is what a gateway sees, shows a sign-in of late.
fn recent(given: &Given, max_age: Duration) -> anyhow::Result<()> {
    let token = String::from_utf8_lossy(given.access.expose()).into_owned();
    let at = claims(&token).and_then(|claims| claims.get("auth_time")?.as_u64());
    if at.is_none() {
        bail!(
            "the issuer writes no `auth_time` into access tokens, so this one proves no recent \
             sign-in; nothing was kept\nhint: approve in the console, or have the issuer add the claim"
        );
    }
    SignIn::within(at, max_age, unix()).map_err(|why| {
        anyhow::anyhow!(
            "the issuer did not ask again: {why}; nothing was kept\nhint: add `--prompt login`"
        )
    })
}

fn keep(way: Way, purpose: Purpose, scopes: Vec<String>, given: Given) -> Kept {
    Kept {
        issuer: way.issuer,
        client_id: way.client_id,
        audience: way.audience,
        purpose,
        server: way.server,
        ca: way.ca,
        scopes,
        who: given.who,
        access: given.access,
        issued: given.issued,
        expires: given.expires,
        refresh: given.refresh,
    }
}

fn told(kept: &Kept, json: bool) -> anyhow::Result<String> {
    let until = i64::try_from(kept.expires)?;
    let until = OffsetDateTime::from_unix_timestamp(until)?.format(&Rfc3339)?;
    if json {
        let done = json!({
            "event": "signed_in", "issuer": kept.issuer, "client_id": kept.client_id,
            "who": kept.who, "scopes": kept.scopes, "server": kept.server,
            "expires_at": until, "refreshable": kept.refresh.is_some(),
        });
        return Ok(done.to_string());
    }
    let who = kept.who.as_deref().map(plain);
    let then = match kept.refresh {
        Some(_) => "renewed by itself",
        None => "then log in again: the issuer gave no refresh token",
    };
    Ok(format!(
        "signed in as {} at {} for {}, until {until} ({then})",
        who.as_deref().unwrap_or("somebody"),
        kept.issuer,
        kept.scopes.join(" "),
    ))
}

/// A line for programs, at once.
fn say(value: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LoginArgs,
    }

    fn scopes(words: &[&str]) -> anyhow::Result<(Purpose, Vec<String>)> {
        let line = ["login"].iter().chain(words);
        Line::parse_from(line).args.scopes(&Way {
            issuer: "https://issuer.example".to_owned(),
            client_id: "cli".to_owned(),
            audience: None,
            connect_scope: "hp.connect".to_owned(),
            review_scope: "hp.review".to_owned(),
            server: None,
            ca: None,
        })
    }

    #[test]
    fn a_login_is_for_connecting_unless_it_says_otherwise() {
        let (purpose, words) = scopes(&[]).unwrap();
        assert_eq!(
            (purpose, words),
            (Purpose::Connect, vec!["hp.connect".to_owned()])
        );
        for args in [&["--review"][..], &["--scope", "hp.review"]] {
            let (purpose, words) = scopes(args).unwrap();
            assert_eq!(
                (purpose, words),
                (Purpose::Review, vec!["hp.review".to_owned()])
            );
        }
    }

    #[test]
    fn no_token_both_connects_and_decides() {
        assert!(scopes(&["--scope", "hp.review hp.connect"]).is_err());
        assert!(scopes(&["--review", "--scope", "hp.connect"]).is_err());
    }
}
