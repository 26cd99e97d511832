//! Signing in at the issuer, and who is behind a request.
//!
//! The state of a sign-in lives here and is tied to the browser that began it by a cookie of
//! its own; an answer counts once. What comes of it is an access token that the API's own check
//! must accept for deciding; the browser gets a random name for it, the token itself never.
//!
//! When somebody signed in is what the ID token says (`auth_time`), which came in the same answer as
//! the access token. A rule may want that to be recent: then the issuer is asked with `max_age`, and
//! once more with `prompt=login` where it took no notice.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use holdpoint_core::approval::SignIn;
use holdpoint_core::config::Issuer;
use holdpoint_core::display::escape_line;
use holdpoint_core::principal::Principal;
use holdpoint_core::secret::Secret;
use serde::Deserialize;

use super::Console;
use super::guard::cookie;
use super::html::Html;
use super::page::{Frame, Tab, notice, refused};
use crate::api::Problem;
use crate::identity::same_secret;
use crate::oidc::{self, Ask, Client, Provider, plain};

/// To type a password and find a phone.
const PATIENCE: Duration = Duration::from_secs(600);

/// What an issuer says of itself is used for this long.
const FRESH: Duration = Duration::from_secs(3600);

/// From the issuer's page to ours.
const ON_THE_WAY: Duration = Duration::from_secs(60);

/// A sign-in ends after this, whatever its token says.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// An issuer that people sign in at.
pub(super) struct Way {
    pub(super) name: String,
    issuer: String,
    client_id: String,
    secret: Option<Secret>,
    audience: Option<String>,
    review_scope: String,
    ca: Option<PathBuf>,
    /// What the issuer said of itself, and when.
    provider: Mutex<Option<(u64, Arc<Provider>)>>,
}

impl Way {
    /// `secret` is that of the issuer's `console` client, if it is a confidential one.
    pub(super) fn of(issuer: &Issuer, secret: Option<Secret>) -> Option<Self> {
        let (client_id, audience) = match (&issuer.console, &issuer.login) {
            (Some(console), _) => (&console.client_id, &console.audience),
            (None, Some(login)) => (&login.client_id, &login.audience),
            (None, None) => return None,
        };
        Some(Self {
            name: issuer.name.clone(),
            issuer: issuer.issuer.clone(),
            client_id: client_id.clone(),
            secret,
            audience: audience.clone(),
            review_scope: issuer.review_scope.clone(),
            ca: issuer.ca.clone(),
            provider: Mutex::default(),
        })
    }

    /// Asked anew after a while, and after a failure: issuers move their endpoints.
    pub(super) async fn provider(&self, now: u64) -> anyhow::Result<Arc<Provider>> {
        if let Some((until, provider)) = &*self.kept()
            && now < *until
        {
            return Ok(Arc::clone(provider));
        }
        let client = Client {
            issuer: self.issuer.clone(),
            client_id: self.client_id.clone(),
            audience: self.audience.clone(),
            ca: self.ca.clone(),
            secret: self.secret.clone(),
            // A sign-in lasts as long as its token; the issuer knows who is still there.
            offline: false,
        };
        let provider = Arc::new(Provider::open(&client).await?);
        *self.kept() = Some((after(now, FRESH), Arc::clone(&provider)));
        Ok(provider)
    }

    /// Something that the issuer had said was wrong.
    fn forget(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> MutexGuard<'_, Option<(u64, Arc<Provider>)>> {
        self.provider.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sign-in under way.
pub(super) struct Begun {
    way: usize,
    /// Until somebody takes it, once.
    begun: Mutex<Option<oidc::Begun>>,
    /// What the browser that began it has in its cookie.
    browser: String,
    next: String,
    /// How recent the sign-in has to be, and whether the issuer was told to ask in any case.
    max_age: Option<Duration>,
    prompted: bool,
}

/// A browser in which somebody is signed in.
pub(super) struct SignedIn {
    pub(super) token: Secret,
    pub(super) csrf: String,
    /// Where.
    pub(super) way: usize,
    /// When, as the ID token says.
    auth_time: Option<u64>,
}

#[cfg(test)]
impl SignedIn {
    pub(super) fn with(token: &str, csrf: &str) -> Self {
        Self {
            token: token.to_owned().into(),
            csrf: csrf.to_owned(),
            way: 0,
            auth_time: None,
        }
    }
}

/// Who sent a request: the token was good a moment ago.
pub(super) struct Who {
    pub(super) principal: Principal,
    pub(super) session: Arc<SignedIn>,
    /// Whether security keys can be registered here.
    pub(super) keys: bool,
}

impl Who {
    pub(super) fn label(&self) -> String {
        escape_line(self.principal.label.as_bytes())
    }
}

impl Console {
    /// The reviewer behind a request, or the page to sign in and come back to `next`.
    ///
    /// # Errors
    /// The page, ready to be sent.
    pub(super) async fn who(&self, headers: &HeaderMap, next: &str) -> Result<Who, Box<Response>> {
        let shared = &self.0;
        let now = self.now();
        let session = cookie(headers, &shared.origin.cookie_name(""))
            .and_then(|name| Some((name, shared.signed_in.get(name, now.mono_ns)?)));
        let Some((name, session)) = session else {
            return Err(Box::new(self.sign_in_page(next, None)));
        };
        match shared.tokens.review(session.token.expose(), now).await {
            Ok(mut principal) => {
                principal.auth_time = older(session.auth_time, principal.auth_time);
                Ok(Who {
                    principal,
                    session,
                    keys: shared.keys.is_some(),
                })
            }
            Err(denial) => {
                shared.signed_in.take(name, now.mono_ns);
                let problem = Problem::from(denial);
                Err(Box::new(self.sign_in_page(next, Some(&problem))))
            }
        }
    }

    /// As [`Console::who`], for what changes something: the form must be ours, too.
    ///
    /// # Errors
    /// The page, ready to be sent. Nothing was done.
    pub(super) async fn sender(
        &self,
        headers: &HeaderMap,
        csrf: &str,
        next: &str,
    ) -> Result<Who, Box<Response>> {
        if !self.0.origin.sent(headers) {
            return Err(Box::new(foreign()));
        }
        let who = self.who(headers, next).await?;
        if same_secret(csrf, &who.session.csrf) {
            Ok(who)
        } else {
            Err(Box::new(foreign()))
        }
    }

    /// Where `who` signs in once more and comes back to `next`, if their sign-in is older than
    /// `max`; with why.
    pub(super) fn again(&self, who: &Who, max: Duration, next: &str) -> Option<(SignIn, String)> {
        let unix = self.now().unix();
        let why = SignIn::within(who.principal.auth_time, max, unix).err()?;
        let way = self.0.ways.get(who.session.way);
        let issuer = way.map_or("", |way| way.name.as_str());
        // Half of it, so that there is time left to read and to decide.
        Some((why, login_url(issuer, max / 2, false, next)))
    }

    fn sign_in_page(&self, next: &str, over: Option<&Problem>) -> Response {
        let mut html = Html::default();
        html.raw("<section class=\"notice\"><h1>Sign in to review</h1>");
        match over {
            None => html.raw(
                "<p>Commands that need a person's approval wait here. Sign in with an identity that may decide.</p>",
            ),
            Some(problem) => html
                .raw("<p>Your sign-in is over, and nothing was done: ")
                .text(&problem.detail)
                .raw(" (")
                .text(&problem.code)
                .raw(").</p>"),
        };
        if self.0.ways.is_empty() {
            html.raw("<p class=\"soft\">No issuer is set up for it: an operator sets <code>login = { client_id = \"…\" }</code> or <code>console</code> of an <code>[[identity.issuer]]</code>. Until then there is <code>holdpoint approvals</code>.</p>");
        }
        for way in &self.0.ways {
            html.raw("<p><a class=\"button\" href=\"/console/login?issuer=")
                .text(&query(&way.name))
                .raw("&amp;next=")
                .text(&query(next))
                .raw("\">Sign in");
            if self.0.ways.len() > 1 {
                html.raw(" at ").text(&way.name);
            }
            html.raw("</a></p>");
        }
        html.raw("</section>");
        let frame = Frame {
            title: "Sign in",
            tab: Tab::None,
            who: None,
            pending: 0,
            live: None,
        };
        frame.page(StatusCode::UNAUTHORIZED, &html)
    }
}

#[derive(Deserialize)]
pub(super) struct Start {
    issuer: Option<String>,
    next: Option<String>,
    /// Seconds.
    max_age: Option<u64>,
    /// `login`.
    prompt: Option<String>,
}

/// Sends the browser to the issuer.
pub(super) async fn login(
    State(console): State<Console>,
    query: Result<Query<Start>, QueryRejection>,
) -> Response {
    let Ok(Query(start)) = query else {
        return nothing();
    };
    let wanted = |way: &Way| start.issuer.as_ref().is_none_or(|name| *name == way.name);
    let Some(at) = console.0.ways.iter().position(wanted) else {
        return nothing();
    };
    let way = &console.0.ways[at];
    let max_age = start.max_age.map(Duration::from_secs);
    let prompted = start.prompt.as_deref() == Some("login");
    let begun = match way.provider(console.now().mono_ns).await {
        Ok(provider) => {
            let scopes = [way.review_scope.clone()];
            let ask = Ask {
                prompt: prompted.then_some("login"),
                max_age,
            };
            provider.begin(&scopes, console.0.origin.callback(), ask)
        }
        Err(error) => Err(error),
    };
    let begun = match begun {
        Ok(begun) => begun,
        Err(error) => return unreachable(way, &error),
    };
    let Ok(browser) = random() else {
        return notice(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not now",
            "There is no randomness to be had on this machine.",
            None,
        );
    };
    let state = begun.state.secret().clone();
    let url = begun.url.to_string();
    let now = console.now().mono_ns;
    let name = console.0.origin.cookie_name(&login_cookie(&state));
    let set = console
        .0
        .origin
        .cookie(&name, &browser, Some(PATIENCE.as_secs()));
    let value = Begun {
        way: at,
        begun: Mutex::new(Some(begun)),
        browser,
        next: start.next.filter(|next| is_ours(next)).unwrap_or_default(),
        max_age,
        prompted,
    };
    console
        .0
        .begun
        .put(&state, value, now, after(now, PATIENCE));
    with_cookie(Redirect::to(&url).into_response(), &set)
}

#[derive(Deserialize)]
pub(super) struct Answer {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Where the issuer sends the browser back to.
pub(super) async fn callback(
    State(console): State<Console>,
    headers: HeaderMap,
    query: Result<Query<Answer>, QueryRejection>,
) -> Response {
    let Ok(Query(answer)) = query else {
        return nothing();
    };
    let shared = &console.0;
    let now = console.now();
    let state = answer.state.unwrap_or_default();
    let name = shared.origin.cookie_name(&login_cookie(&state));
    // Looked at before it is taken: who only knows the state must not use it up.
    let right = shared.begun.get(&state, now.mono_ns).filter(|begun| {
        cookie(&headers, &name).is_some_and(|value| same_secret(value, &begun.browser))
    });
    let Some(begun) = right.and_then(|_| shared.begun.take(&state, now.mono_ns)) else {
        return notice(
            StatusCode::BAD_REQUEST,
            "Not signed in",
            "This answer belongs to no sign-in of this browser, or came too late. Nothing was done.",
            Some("start again"),
        );
    };
    let clear = shared.origin.cookie(&name, "", Some(0));
    let response = match finish(&console, &begun, answer.code, answer.iss, answer.error).await {
        Ok(set) => {
            let next = match begun.next.as_str() {
                "" => "/console",
                next => next,
            };
            // The former sign-in of this browser, if there was one, is over.
            if let Some(former) = cookie(&headers, &shared.origin.cookie_name("")) {
                shared.signed_in.take(former, now.mono_ns);
            }
            with_cookie(Redirect::to(next).into_response(), &set)
        }
        Err(Failed::Said(error)) => {
            let text = answer.error_description.unwrap_or_default();
            let said = format!("The issuer says: {} {}", plain(&error), plain(&text));
            notice(
                StatusCode::FORBIDDEN,
                "Not signed in",
                said.trim_end(),
                None,
            )
        }
        Err(Failed::Page(page)) => *page,
    };
    with_cookie(response, &clear)
}

/// Where a sign-in begins that has to be this recent.
fn login_url(issuer: &str, max_age: Duration, prompted: bool, next: &str) -> String {
    format!(
        "/console/login?issuer={}&max_age={}{}&next={}",
        query(issuer),
        max_age.as_secs(),
        if prompted { "&prompt=login" } else { "" },
        query(next)
    )
}

/// Of two times that are said of one sign-in, the one that proves less.
fn older(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

enum Failed {
    /// The issuer's error code.
    Said(String),
    Page(Box<Response>),
}

/// Gives the `Set-Cookie` of somebody who is signed in.
async fn finish(
    console: &Console,
    begun: &Begun,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
) -> Result<String, Failed> {
    let page = |response| Failed::Page(Box::new(response));
    let shared = &console.0;
    let way = shared.ways.get(begun.way).ok_or_else(|| page(nothing()))?;
    let provider = way
        .provider(console.now().mono_ns)
        .await
        .map_err(|error| page(unreachable(way, &error)))?;
    let right = match &iss {
        Some(iss) => *iss == way.issuer,
        None => !provider.names_itself(),
    };
    if !right {
        return Err(page(notice(
            StatusCode::BAD_REQUEST,
            "Not signed in",
            "This answer comes from another issuer. Nothing was done.",
            None,
        )));
    }
    let code = match (code, error) {
        (Some(code), None) => code,
        (_, error) => {
            return Err(Failed::Said(
                error.unwrap_or_else(|| "no code came".to_owned()),
            ));
        }
    };
    let ours = begun
        .begun
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let ours = ours.ok_or_else(|| page(nothing()))?;
    let given = provider.finish(ours, code).await;
    if given.is_err() {
        way.forget();
    }
    let given = given.map_err(|error| {
        tracing::warn!(
            issuer = way.name,
            error = format!("{error:#}"),
            "console: no token"
        );
        page(notice(
            StatusCode::BAD_GATEWAY,
            "Not signed in",
            "The issuer gave no token that can be used; the gateway's log says why.",
            None,
        ))
    })?;
    let now = console.now();
    let principal = shared
        .tokens
        .review(given.access.expose(), now)
        .await
        .map_err(|denial| page(refused("You cannot review here", &Problem::from(denial))))?;
    let auth_time = older(given.auth_time, principal.auth_time);
    if let Some(max_age) = begun.max_age {
        check_age(begun, way, auth_time, max_age, now.unix()).map_err(page)?;
    }
    let (Ok(name), Ok(csrf)) = (random(), random()) else {
        return Err(page(nothing()));
    };
    let lasts = Duration::from_secs(given.expires.saturating_sub(given.issued)).min(LONGEST);
    let session = SignedIn {
        token: given.access,
        csrf,
        way: begun.way,
        auth_time,
    };
    let until = after(now.mono_ns, lasts);
    shared.signed_in.put(&name, session, now.mono_ns, until);
    tracing::info!(
        principal.iss = principal.identity.issuer,
        principal.sub = principal.identity.subject,
        "console: signed in"
    );
    let origin = &shared.origin;
    Ok(origin.cookie(&origin.cookie_name(""), &name, None))
}

/// An issuer that was asked with `max_age` says when the person signed in, and that is recent; some
/// do not do as they are asked until they are told to prompt.
fn check_age(
    begun: &Begun,
    way: &Way,
    auth_time: Option<u64>,
    max_age: Duration,
    unix: u64,
) -> Result<(), Response> {
    let Err(why) = SignIn::within(auth_time, max_age.saturating_add(ON_THE_WAY), unix) else {
        return Ok(());
    };
    tracing::warn!(
        issuer = way.name,
        max_age = max_age.as_secs(),
        ?why,
        "console: no recent sign-in"
    );
    match why {
        SignIn::Old(_) if !begun.prompted => {
            let again = login_url(&way.name, max_age, true, &begun.next);
            Err(Redirect::to(&again).into_response())
        }
        SignIn::Unknown => Err(notice(
            StatusCode::BAD_GATEWAY,
            "Not signed in again",
            "The issuer does not say when you signed in (`auth_time` in the ID token), so nothing proves that it was just now.",
            Some(
                "an operator: the console's client has to ask for `openid`, and the issuer to say it",
            ),
        )),
        SignIn::Old(_) | SignIn::Future => Err(notice(
            StatusCode::BAD_GATEWAY,
            "Not signed in again",
            "The issuer did not ask you to sign in again although it was told to, or its clock is wrong.",
            None,
        )),
    }
}

/// One a sign-in: two windows do not disturb each other.
fn login_cookie(state: &str) -> String {
    let tail: String = state
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(10)
        .collect();
    format!("-login-{tail}")
}

/// A path of the console, and nothing that a browser could take for another place.
fn is_ours(next: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-');
    next == "/console" || (next.starts_with("/console/") && next.chars().all(plain))
}

pub(super) fn query(text: &str) -> String {
    openidconnect::url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

pub(super) fn after(now: u64, span: Duration) -> u64 {
    now.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

pub(super) fn random() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

pub(super) fn with_cookie(mut response: Response, set: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(set) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

fn unreachable(way: &Way, error: &anyhow::Error) -> Response {
    tracing::warn!(
        issuer = way.name,
        error = format!("{error:#}"),
        "console: no sign-in"
    );
    notice(
        StatusCode::BAD_GATEWAY,
        "The issuer cannot be used",
        "Signing in did not begin; the gateway's log says why.",
        None,
    )
}

fn foreign() -> Response {
    notice(
        StatusCode::FORBIDDEN,
        "Nothing was done",
        "This did not come from a page of this sign-in.",
        Some("open the page again and repeat what you did"),
    )
}

fn nothing() -> Response {
    notice(
        StatusCode::BAD_REQUEST,
        "Nothing was done",
        "The request could not be understood.",
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_sign_in_one_comes_back_to_the_console_and_nowhere_else() {
        assert!(is_ours("/console") && is_ours("/console/approvals/ap-1A/deny"));
        for bad in [
            "",
            "/",
            "/consoles",
            "//evil.example",
            "/console//\\evil",
            "/console/../v1/x",
            "/console/?next=https://evil.example",
            "/console/\r\nset-cookie: a=b",
            "https://evil.example/console",
        ] {
            assert!(!is_ours(bad), "{bad}");
        }
    }
}
