//! Asks lists kept elsewhere who is on call: `[review.oncall.NAME]`.
//!
//! The answer is a small JSON document, `{"people": [{"issuer": "NAME", "subject": "…"}]}`,
//! where `NAME` is an issuer of the configuration. Anything else, other members aside, is
//! no answer, and then nobody is on call. An answer counts for a short while, a failure
//! for two seconds; whoever asks meanwhile waits for the same request.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use holdpoint_core::config::{Config, OnCall};
use holdpoint_core::principal::Identity;
use http::{HeaderValue, Request, StatusCode, header};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::approvals::{Later, Rotas};
use crate::http_client::{HttpClient, HttpError, USER_AGENT, checked};
use crate::secrets::Secrets;

/// Of a request: a person waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A list of people, not a directory.
const MAX_BODY: usize = 64 * 1024;
const MAX_PEOPLE: usize = 1_000;

/// How long a failure stands, so that votes cannot hammer a list that is down.
const FAILED_FOR: Duration = Duration::from_secs(2);

/// All lists that the configuration names.
pub(crate) struct Lists {
    lists: BTreeMap<String, List>,
    issuers: BTreeMap<String, String>,
    secrets: Secrets,
}

struct List {
    config: OnCall,
    http: HttpClient,
    /// Locked while it asks: one request at a time.
    known: Mutex<Option<Known>>,
}

struct Known {
    until: Instant,
    answer: Result<Vec<Identity>, String>,
}

#[derive(Deserialize)]
struct Answer {
    people: Vec<Person>,
}

#[derive(Deserialize)]
struct Person {
    issuer: String,
    subject: String,
}

impl Lists {
    /// # Errors
    /// A CA bundle cannot be read, or a URL is not safe to ask.
    pub(crate) fn new(config: &Config, secrets: &Secrets) -> Result<Self, HttpError> {
        let mut lists = BTreeMap::new();
        for (name, config) in &config.review.on_call {
            checked(&config.url)?;
            let list = List {
                config: config.clone(),
                http: HttpClient::new(config.ca.as_deref(), MAX_BODY)?,
                known: Mutex::new(None),
            };
            lists.insert(name.clone(), list);
        }
        Ok(Self {
            lists,
            issuers: config.issuer_names(),
            secrets: secrets.clone(),
        })
    }

    async fn people(&self, name: &str) -> Result<Vec<Identity>, String> {
        let Some(list) = self.lists.get(name) else {
            return Err(format!("there is no `[review.oncall.{name}]` in force"));
        };
        let mut known = list.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| Instant::now() < known.until) {
            return known.answer.clone();
        }
        let answer = self.ask(name, list).await;
        let good_for = match &answer {
            Ok(_) => list.config.cache,
            Err(_) => FAILED_FOR,
        };
        *known = Some(Known {
            until: Instant::now() + good_for,
            answer: answer.clone(),
        });
        answer
    }

    async fn ask(&self, name: &str, list: &List) -> Result<Vec<Identity>, String> {
        let url = checked(&list.config.url).map_err(|error| error.to_string())?;
        let mut request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, USER_AGENT);
        if list.config.secret.is_some() {
            let secret = self.secrets.on_call(name);
            let secret = secret.ok_or("its secret is not there")?;
            let bearer = [b"Bearer ", secret.expose()].concat();
            let mut bearer = HeaderValue::from_bytes(&bearer)
                .map_err(|_| "its secret cannot stand in a header".to_owned())?;
            bearer.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request
            .body(Bytes::new())
            .map_err(|_| "the request cannot be made".to_owned())?;
        let answer = list.http.send(request, TIMEOUT).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("it answered {}", answer.status));
        }
        self.read(&answer.body)
    }

    fn read(&self, body: &[u8]) -> Result<Vec<Identity>, String> {
        let answer: Answer = serde_json::from_slice(body).map_err(|_| {
            "its answer is not `{\"people\": [{\"issuer\": …, \"subject\": …}]}`".to_owned()
        })?;
        if answer.people.len() > MAX_PEOPLE {
            return Err(format!("it names more than {MAX_PEOPLE} people"));
        }
        let known = |person: Person| {
            let issuer = self
                .issuers
                .get(&person.issuer)
                .filter(|_| !person.subject.is_empty());
            let issuer =
                issuer.ok_or("it names an issuer that is not configured, or no subject")?;
            Ok(Identity {
                issuer: issuer.clone(),
                subject: person.subject,
            })
        };
        answer.people.into_iter().map(known).collect()
    }
}

impl Rotas for Lists {
    fn on_call<'a>(&'a self, list: &'a str) -> Later<'a, Result<Vec<Identity>, String>> {
        Box::pin(self.people(list))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::HeaderMap;
    use axum::routing::get;

    use super::*;

    const PEOPLE: &str = r#"{"people": [{"issuer": "acme", "subject": "rita"}], "until": 5}"#;

    /// A list at `path` of a server on loopback, and how often it was asked.
    async fn lists(path: &str, cache: &str) -> (Lists, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let app = axum::Router::new()
            .route(
                "/good",
                get(async move |headers: HeaderMap| {
                    count.fetch_add(1, Ordering::SeqCst);
                    let bearer = headers.get("authorization");
                    match bearer.map(|value| value.as_bytes()) {
                        Some(b"Bearer s3cret") => (StatusCode::OK, PEOPLE),
                        _ => (StatusCode::UNAUTHORIZED, ""),
                    }
                }),
            )
            .route("/else", get(async || "[]"))
            .route(
                "/other",
                get(async || r#"{"people": [{"issuer": "other", "subject": "rita"}]}"#),
            )
            .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR))
            .route(
                "/moved",
                get(async || axum::response::Redirect::to("/good")),
            )
            .route("/long", get(async || "x".repeat(MAX_BODY + 1)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let dir = std::env::temp_dir().join(format!("holdpoint-on-call-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let secret = dir.join("secret");
        std::fs::write(&secret, "s3cret").unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = format!(
            r#"[[identity.issuer]]
name = "acme"
issuer = "https://acme.example"
audiences = ["x"]
[target.t]
protocol = "postgres"
address = "127.0.0.1:1"
tls = "off"
user = "u"
[listener.l]
listen = "127.0.0.1:6432"
target = "t"
tls = {{ cert = "c", key = "k" }}
[policy]
files = ["p.toml"]
[review.oncall.sre]
url = "{base}{path}"
secret = "file:{}"
cache = "{cache}"
"#,
            secret.display()
        );
        let config = Config::parse(&text, "test", Path::new("/")).unwrap();
        let secrets = Secrets::load(&config).unwrap();
        (Lists::new(&config, &secrets).unwrap(), asked)
    }

    #[tokio::test]
    async fn who_is_on_call_is_asked_with_the_secret_and_kept_for_a_while() {
        let (lists, asked) = lists("/good", "1m").await;
        let rita = Identity {
            issuer: "https://acme.example".to_owned(),
            subject: "rita".to_owned(),
        };
        for _ in 0..3 {
            assert_eq!(lists.on_call("sre").await, Ok(vec![rita.clone()]));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_answer_is_asked_for_again_when_its_time_is_over() {
        let (lists, asked) = lists("/good", "1ms").await;
        for _ in 0..2 {
            assert!(lists.on_call("sre").await.is_ok());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn whatever_is_no_good_answer_makes_nobody_eligible() {
        for (path, why) in [
            ("/else", "its answer is not"),
            ("/other", "not configured"),
            ("/broken", "it answered 500"),
            ("/moved", "it answered 303"),
            ("/absent", "it answered 404"),
            ("/long", "more than"),
        ] {
            let (lists, _) = lists(path, "1m").await;
            let said = lists.on_call("sre").await.unwrap_err();
            assert!(said.contains(why), "{path}: {said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
        let (lists, _) = lists("/good", "1m").await;
        assert!(lists.on_call("other").await.is_err());
    }
}
