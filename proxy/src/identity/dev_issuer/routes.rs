//! The development issuer over HTTP: OpenID Connect as far as `holdpoint login` and other
//! clients need it. Code flow with PKCE (S256 alone), refresh, device grant, client credentials.
//!
//! A redirect goes to a loopback address and the path `/callback` (or the console's), any port (RFC 8252
//! section 7.3); not to `localhost`, which a resolver may send elsewhere, unless it is the console's. A request whose
//! client or redirect is wrong gets a page, never a redirect.
//!
//! A browser in which somebody signed in before may go on as they are, with the `auth_time` of then;
//! `max_age` and `prompt=login` have them choose again, which is all that signing in is here.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Form, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use openidconnect::url::Url;
use serde::Deserialize;
use serde_json::{Value, json};

use super::grants::{Asked, Authorization, DEVICE, INTERVAL, Refused, Signed, same};
use super::page::{self, Choice, guard, notice};
use super::{CONNECT, DEV_GRANT, DevIssuerError, PEOPLE_CLIENT, REVIEW, Shared};
use crate::http_client::is_loopback;

const CODE_GRANT: &str = "authorization_code";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

const CONSOLE: &str = "/console/callback";

/// Where `holdpoint login` and the console listen for an answer.
const CALLBACKS: [&str; 2] = ["/callback", CONSOLE];

/// The cookie that tells who signed in with a browser before.
const SESSION: &str = "holdpoint-dev-session";

/// Scopes that say what comes with a token, not what it is for.
const PLAIN: [&str; 4] = ["openid", "profile", "email", "offline_access"];

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/dev/.well-known/openid-configuration", get(discovery))
        .route("/dev/jwks", get(jwks))
        .route("/dev/token", post(token))
        .route("/dev/authorize", get(authorize).post(signed_in))
        .route("/dev/device/code", post(device_code))
        .route("/dev/device", get(device_page).post(device_answer))
        .layer(middleware::from_fn(named_by_address))
        .with_state(shared)
}

/// Lets requests through whose `Host` is a loopback address.
async fn named_by_address(headers: HeaderMap, request: Request, next: Next) -> Response {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<axum::http::uri::Authority>().ok());
    if authority.is_some_and(|authority| is_loopback(authority.host())) {
        next.run(request).await
    } else {
        refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "invalid_request",
            "name this issuer by its address",
        )
    }
}

async fn discovery(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let issuer = &shared.issuer;
    Json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks"),
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "device_authorization_endpoint": format!("{issuer}/device/code"),
        "grant_types_supported": [
            CODE_GRANT, "refresh_token", DEVICE_GRANT, "client_credentials", DEV_GRANT,
        ],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "none"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "scopes_supported": ["openid", "offline_access", CONNECT, REVIEW],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn jwks(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({ "keys": [shared.jwk] }))
}

#[derive(Deserialize)]
struct AuthorizeRequest {
    response_type: Option<String>,
    client_id: Option<String>,
    redirect_uri: Option<String>,
    scope: Option<String>,
    state: Option<String>,
    nonce: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
    prompt: Option<String>,
    max_age: Option<String>,
}

async fn authorize(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(request): Query<AuthorizeRequest>,
) -> Response {
    let wrong = |text: &str| notice(StatusCode::BAD_REQUEST, "This request is wrong", text);
    if request.client_id.as_deref() != Some(PEOPLE_CLIENT) {
        return wrong("The client is not `holdpoint-dev`.");
    }
    let Some(redirect_uri) = request.redirect_uri.filter(|uri| is_callback(uri)) else {
        return wrong("The redirect is not `http://127.0.0.1:PORT/callback`.");
    };
    let state = request.state;
    let back = |error: &str, text: &str| {
        redirect(
            &shared,
            &redirect_uri,
            state.as_deref(),
            &[("error", error), ("error_description", text)],
        )
    };
    if request.response_type.as_deref() != Some("code") {
        return back("unsupported_response_type", "only `code`");
    }
    let challenge = match (
        request.code_challenge,
        request.code_challenge_method.as_deref(),
    ) {
        (Some(challenge), Some("S256")) if challenge.len() == 43 => challenge,
        _ => return back("invalid_request", "PKCE with S256 is needed"),
    };
    let asked = match asked(request.scope.as_deref(), request.nonce) {
        Ok(asked) => asked,
        Err(Refused(error, text)) => return back(error, text),
    };
    let max_age = match (request.max_age.as_deref(), request.prompt.as_deref()) {
        // Somebody has to choose, always.
        (_, Some("none")) => return back("login_required", "nobody signs in without a page"),
        (_, Some("login" | "select_account")) => 0,
        (None, _) => u64::MAX,
        (Some(text), _) => match text.parse() {
            Ok(seconds) => seconds,
            Err(_) => return back("invalid_request", "`max_age` is no number of seconds"),
        },
    };
    let text = format!(
        "A program on this machine asks for {}.",
        asked.scopes.join(", ")
    );
    let scopes = asked.scopes.clone();
    let authorization = Authorization {
        asked,
        redirect_uri: redirect_uri.clone(),
        state: state.clone(),
        challenge,
        max_age,
    };
    let now = shared.now();
    let known = cookies(&headers)
        .get(SESSION)
        .and_then(|name| shared.grants().session(name, &authorization, now))
        .filter(|session| shared.may_all(&session.user, &scopes))
        .map(|session| (session.user, now.saturating_sub(session.at)));
    let opened = shared.grants().open_page(Some(authorization), shared.now());
    match opened {
        Ok((name, csrf)) => {
            let form = page::Form {
                action: "/dev/authorize",
                page: &name,
                csrf: &csrf,
                text,
                user_code: None,
                known: known.as_ref().map(|(user, age)| (user.as_str(), *age)),
                choices: choices(&shared, Some(&scopes)),
            };
            show(&form)
        }
        Err(Refused(error, text)) => back(error, text),
    }
}

#[derive(Deserialize)]
struct Chosen {
    page: String,
    csrf: String,
    user: Option<String>,
    /// Go on as who signed in before.
    known: Option<String>,
    deny: Option<String>,
    user_code: Option<String>,
}

async fn signed_in(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(chosen): Form<Chosen>,
) -> Response {
    let Some(page) = closed(&shared, &headers, &chosen) else {
        return stale();
    };
    let Some(authorization) = page.authorization else {
        return stale();
    };
    let (uri, state) = (
        authorization.redirect_uri.clone(),
        authorization.state.clone(),
    );
    let back = |parameters: &[(&str, &str)]| redirect(&shared, &uri, state.as_deref(), parameters);
    let now = shared.now();
    let known = cookies(&headers)
        .get(SESSION)
        .filter(|_| chosen.known.is_some())
        .and_then(|name| shared.grants().session(name, &authorization, now))
        .map(|session| (session.user, session.at));
    let signed = known.or(chosen.user.map(|user| (user, now)));
    let Some((user, at)) = signed.filter(|_| chosen.deny.is_none()) else {
        return back(&[("error", "access_denied")]);
    };
    if !shared.may_all(&user, &authorization.asked.scopes) {
        return back(&[
            ("error", "invalid_scope"),
            ("error_description", "that identity may not have this scope"),
        ]);
    }
    let mut grants = shared.grants();
    let code = grants.code(&user, at, authorization, now);
    let session = grants.open_session(&user, at);
    drop(grants);
    match code {
        Ok(code) => {
            let mut response = back(&[("code", &code)]);
            // A browser that is not remembered signs in again.
            let cookie = session
                .ok()
                .map(|name| format!("{SESSION}={name}; Path=/dev; HttpOnly; SameSite=Lax"));
            if let Some(Ok(cookie)) = cookie.map(|cookie| cookie.parse()) {
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(Refused(error, text)) => back(&[("error", error), ("error_description", text)]),
    }
}

#[derive(Deserialize)]
struct DeviceRequest {
    client_id: Option<String>,
    scope: Option<String>,
}

async fn device_code(
    State(shared): State<Arc<Shared>>,
    Form(request): Form<DeviceRequest>,
) -> Response {
    if request.client_id.as_deref() != Some(PEOPLE_CLIENT) {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "the client is not `holdpoint-dev`",
        );
    }
    let device = asked(request.scope.as_deref(), None)
        .and_then(|asked| shared.grants().device(asked, shared.now()));
    match device {
        Ok((code, user_code)) => {
            let uri = format!("{}/device", shared.issuer);
            json_answer(json!({
                "device_code": code, "user_code": user_code,
                "verification_uri": uri,
                "verification_uri_complete": format!("{uri}?user_code={user_code}"),
                "expires_in": DEVICE, "interval": INTERVAL,
            }))
        }
        Err(refused) => refuse(StatusCode::BAD_REQUEST, refused.0, refused.1),
    }
}

#[derive(Deserialize)]
struct DevicePage {
    user_code: Option<String>,
}

async fn device_page(
    State(shared): State<Arc<Shared>>,
    Query(request): Query<DevicePage>,
) -> Response {
    let code = request.user_code.unwrap_or_default();
    let scopes = shared
        .grants()
        .device_asks(&code, shared.now())
        .map(|asked| asked.scopes.clone());
    let text = match &scopes {
        Some(scopes) => format!(
            "A device asks for {}. Sign in only if it is yours and shows this code.",
            scopes.join(", ")
        ),
        None => "Type the code that your device shows.".to_owned(),
    };
    let opened = shared.grants().open_page(None, shared.now());
    match opened {
        Ok((name, csrf)) => show(&page::Form {
            action: "/dev/device",
            page: &name,
            csrf: &csrf,
            text,
            user_code: Some(&code),
            known: None,
            choices: choices(&shared, scopes.as_deref()),
        }),
        Err(Refused(_, text)) => notice(StatusCode::SERVICE_UNAVAILABLE, "Not now", text),
    }
}

async fn device_answer(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(chosen): Form<Chosen>,
) -> Response {
    let device =
        closed(&shared, &headers, &chosen).is_some_and(|page| page.authorization.is_none());
    if !device {
        return stale();
    }
    let code = chosen.user_code.unwrap_or_default();
    let user = chosen.user.filter(|_| chosen.deny.is_none());
    let now = shared.now();
    let scopes = shared
        .grants()
        .device_asks(&code, now)
        .map(|asked| asked.scopes.clone());
    let unknown = || {
        notice(
            StatusCode::BAD_REQUEST,
            "No device has this code",
            "It was mistyped, answered before, or is too old. Ask again on the device.",
        )
    };
    let Some(scopes) = scopes else {
        return unknown();
    };
    if user
        .as_ref()
        .is_some_and(|user| !shared.may_all(user, &scopes))
    {
        return notice(
            StatusCode::FORBIDDEN,
            "Not for this identity",
            "It may not have what the device asks for. Open the device's page again.",
        );
    }
    let answered = shared.grants().answer_device(&code, user.as_deref(), now);
    match answered {
        Ok(true) => notice(
            StatusCode::OK,
            if user.is_some() {
                "Signed in"
            } else {
                "Refused"
            },
            "Go back to the device. This page can be closed.",
        ),
        Ok(false) => unknown(),
        Err(Refused(_, text)) => notice(StatusCode::SERVICE_UNAVAILABLE, "Not now", text),
    }
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    user: Option<String>,
    code: Option<String>,
    redirect_uri: Option<String>,
    code_verifier: Option<String>,
    refresh_token: Option<String>,
    device_code: Option<String>,
}

async fn token(State(shared): State<Arc<Shared>>, Form(request): Form<TokenRequest>) -> Response {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let now = shared.now();
    let public = [CODE_GRANT, "refresh_token", DEVICE_GRANT];
    if public.contains(&request.grant_type.as_str()) {
        if request.client_id.as_deref() != Some(PEOPLE_CLIENT) {
            let why = "the client is not `holdpoint-dev`";
            return refuse(StatusCode::UNAUTHORIZED, "invalid_client", why);
        }
        let mut grants = shared.grants();
        let signed = match request.grant_type.as_str() {
            CODE_GRANT => grants.redeem(
                &text(&request.code),
                &text(&request.redirect_uri),
                &text(&request.code_verifier),
                now,
            ),
            DEVICE_GRANT => grants.poll(&text(&request.device_code), now),
            _ => grants.refresh(&text(&request.refresh_token), now),
        };
        drop(grants);
        let fresh = request.grant_type != "refresh_token";
        return match signed.and_then(|signed| granted(&shared, &signed, fresh, now)) {
            Ok(answer) => json_answer(answer),
            Err(Refused(error, why)) => refuse(StatusCode::BAD_REQUEST, error, why),
        };
    }
    let subject = match request.grant_type.as_str() {
        "client_credentials" => {
            let client = text(&request.client_id);
            let given = text(&request.client_secret);
            let secret = shared.client_secrets.get(&client);
            let good = secret
                .and_then(|secret| std::str::from_utf8(secret.expose()).ok())
                .is_some_and(|secret| same(secret, &given));
            if !good {
                let text = "unknown client, or not the secret of this start";
                return refuse(StatusCode::UNAUTHORIZED, "invalid_client", text);
            }
            client
        }
        DEV_GRANT => text(&request.user),
        _ => {
            let text = "see `grant_types_supported`";
            return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", text);
        }
    };
    let scope = text(&request.scope);
    let scopes: Vec<&str> = scope.split_ascii_whitespace().collect();
    match shared.mint(&subject, &scopes, shared.ttl, None) {
        Ok(token) => json_answer(json!({
            "access_token": token, "token_type": "Bearer", "expires_in": shared.ttl.as_secs(),
        })),
        Err(error @ DevIssuerError::Scope { .. }) => {
            refuse(StatusCode::BAD_REQUEST, "invalid_scope", &error.to_string())
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, "invalid_grant", &error.to_string()),
    }
}

/// The answer to somebody who signed in, now (`fresh`) or before.
fn granted(shared: &Shared, signed: &Signed, fresh: bool, now: u64) -> Result<Value, Refused> {
    let asked = &signed.asked;
    let failed = |_| Refused("invalid_grant", "that identity is not there any more");
    let scopes: Vec<&str> = asked.scopes.iter().map(String::as_str).collect();
    let mut answer = json!({
        "access_token": shared
            .mint(&signed.user, &scopes, shared.ttl, Some(signed.at))
            .map_err(failed)?,
        "token_type": "Bearer",
        "expires_in": shared.ttl.as_secs(),
        "scope": asked.scopes.join(" "),
    });
    if asked.offline {
        answer["refresh_token"] = shared.grants().refresh_token(signed, now)?.into();
    }
    if asked.openid && fresh {
        answer["id_token"] = shared
            .mint_id(&signed.user, asked.nonce.as_deref(), signed.at)
            .map_err(failed)?
            .into();
    }
    Ok(answer)
}

/// Reads a `scope`. Nothing of ours in it means that the token is for connecting:
/// what decides has to be asked for.
fn asked(scope: Option<&str>, nonce: Option<String>) -> Result<Asked, Refused> {
    let words: Vec<&str> = scope.unwrap_or_default().split_ascii_whitespace().collect();
    let mut scopes: Vec<String> = Vec::new();
    for word in words.iter().filter(|word| !PLAIN.contains(word)) {
        if ![CONNECT, REVIEW].contains(word) {
            return Err(Refused("invalid_scope", "this issuer has no such scope"));
        }
        scopes.push((*word).to_owned());
    }
    if scopes.is_empty() {
        scopes.push(CONNECT.to_owned());
    }
    Ok(Asked {
        scopes,
        openid: words.contains(&"openid"),
        offline: words.contains(&"offline_access"),
        nonce,
    })
}

/// Whether this is where a program on this machine listens.
fn is_callback(uri: &str) -> bool {
    // The parser forgives much; what it gives back must be what was said.
    let Ok(url) = Url::parse(uri) else {
        return false;
    };
    // Browsers send `localhost` to this machine without asking a resolver, and security keys
    // are made for names only; so the console, where a browser goes, may have that name.
    let host = match url.host_str() {
        Some("127.0.0.1" | "[::1]") => true,
        Some("localhost") => url.path() == CONSOLE,
        _ => false,
    };
    host && url.as_str() == uri
        && url.scheme() == "http"
        && CALLBACKS.contains(&url.path())
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

fn redirect(
    shared: &Shared,
    to: &str,
    state: Option<&str>,
    parameters: &[(&str, &str)],
) -> Response {
    let Ok(mut url) = Url::parse(to) else {
        return stale();
    };
    url.query_pairs_mut()
        .extend_pairs(parameters)
        .extend_pairs(state.map(|state| ("state", state)))
        .append_pair("iss", &shared.issuer);
    let location = [(header::LOCATION, url.to_string())];
    let mut response = (StatusCode::SEE_OTHER, location).into_response();
    guard(&mut response);
    response
}

/// Whom to offer: those who may have all of `scopes`.
fn choices<'a>(shared: &'a Shared, scopes: Option<&[String]>) -> Vec<Choice<'a>> {
    shared
        .users
        .iter()
        .filter(|(name, _)| scopes.is_none_or(|scopes| shared.may_all(name, scopes)))
        .map(|(name, user)| Choice {
            name,
            groups: &user.groups,
            agent: user.agent,
        })
        .collect()
}

fn show(form: &page::Form<'_>) -> Response {
    let mut response = page::page(StatusCode::OK, "Who are you?", &form.html());
    let cookie = format!(
        "{}={}; Path=/dev; HttpOnly; SameSite=Strict",
        cookie_name(form.page),
        form.csrf
    );
    if let Ok(cookie) = cookie.parse() {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// One a page: two windows do not disturb each other.
fn cookie_name(page: &str) -> String {
    format!("holdpoint-dev-{}", page.get(..12).unwrap_or_default())
}

/// The page that a form belongs to, if the form is our own and comes for the first time.
fn closed(shared: &Shared, headers: &HeaderMap, chosen: &Chosen) -> Option<super::grants::Page> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let own = |origin: &str| {
        let origin: Option<Uri> = origin.parse().ok();
        let (origin, host) = (origin?.authority()?.to_string(), text(header::HOST)?);
        Some(origin == host)
    };
    if text(header::ORIGIN).is_some_and(|origin| own(origin) != Some(true)) {
        return None;
    }
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin") {
        return None;
    }
    let cookies = cookies(headers);
    let cookie = cookies.get(cookie_name(&chosen.page).as_str()).copied();
    let now = shared.now();
    shared
        .grants()
        .close_page(&chosen.page, &chosen.csrf, cookie, now)
}

fn cookies(headers: &HeaderMap) -> BTreeMap<&str, &str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .collect()
}

fn stale() -> Response {
    notice(
        StatusCode::BAD_REQUEST,
        "This page is too old",
        "It was used before, or did not come from here. Start again where you came from.",
    )
}

fn json_answer(answer: Value) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

fn refuse(status: StatusCode, error: &str, description: &str) -> Response {
    let body = json!({ "error": error, "error_description": description });
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_goes_to_a_loopback_address_and_one_path_on_any_port() {
        for good in [
            "http://127.0.0.1:8000/callback",
            "http://[::1]:1/callback",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:8000/console/callback",
            "http://localhost:8000/console/callback",
        ] {
            assert!(is_callback(good), "{good}");
        }
        for bad in [
            "http://localhost:8000/callback",
            "https://127.0.0.1:8000/callback",
            "http://127.0.0.1:8000/",
            "http://127.0.0.1:8000/callback/",
            "http://127.0.0.1:8000/console/callback/",
            "http://127.0.0.1:8000/console/",
            "http://127.0.0.1:8000/x/../callback",
            "http://127.0.0.1:8000/callback?next=x",
            "http://127.0.0.1:8000/callback#x",
            "http://127.0.0.1@evil.example/callback",
            "http://user@127.0.0.1:8000/callback",
            "http://127.0.0.1.evil.example/callback",
            "http://127.1/callback",
            "http://0x7f000001/callback",
            "http://127.0.0.1:8000\\@evil.example/callback",
            " http://127.0.0.1:8000/callback",
            "javascript:alert(1)",
            "",
        ] {
            assert!(!is_callback(bad), "{bad}");
        }
    }

    #[test]
    fn a_token_to_decide_with_is_given_only_to_who_asks_for_it() {
        let scopes = |scope| asked(Some(scope), None).map(|asked| asked.scopes);
        assert_eq!(
            scopes("openid offline_access"),
            Ok(vec![CONNECT.to_owned()])
        );
        assert_eq!(
            scopes("openid holdpoint.review"),
            Ok(vec![REVIEW.to_owned()])
        );
        assert!(scopes("admin").is_err());
    }
}
