//! The API on a port of its own, with a desk and tokens that are names.

use super::*;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// `review-NAME` may decide, `connect-NAME` may connect; `NAME@SECONDS` signed in then.
struct Names;

impl Tokens for Names {
    fn review<'a>(&'a self, token: &'a [u8], _: Now) -> Later<'a, Result<Principal, Denial>> {
        Box::pin(async move { named(token, "review-") })
    }

    fn connect<'a>(&'a self, token: &'a [u8], _: Now) -> Later<'a, Result<Principal, Denial>> {
        Box::pin(async move { named(token, "connect-") })
    }

    fn is_revoked(&self, principal: &Principal) -> bool {
        principal.label == "revoked"
    }

    fn admits(&self, reviewer: &holdpoint_core::approval::Reviewer) -> bool {
        reviewer.identity.subject != "revoked"
    }

    fn issuer(&self, named: &str) -> Result<String, String> {
        match named {
            "nobodys" => Err("`https://issuer.example`".to_owned()),
            known => Ok(known.to_owned()),
        }
    }

    fn revoke(&self, _: &Identity, _: Option<&Identity>) -> Result<(), String> {
        Ok(())
    }
}

fn named(token: &[u8], kind: &str) -> Result<Principal, Denial> {
    let text = String::from_utf8_lossy(token);
    let Some(name) = text.strip_prefix(kind) else {
        let code = if text.contains('-') {
            "HP-SCOPE"
        } else {
            "HP-TOKEN-INVALID"
        };
        return Err(Denial::new(Kind::Unauthenticated, code, "not this token"));
    };
    if name == "late" {
        let code = "HP-TOKEN-EXPIRED";
        return Err(Denial::new(Kind::Unauthenticated, code, "its time is over"));
    }
    let (name, auth_time) = match name.split_once('@') {
        Some((name, at)) => (name, at.parse().ok()),
        None => (name, None),
    };
    let mut principal = principal(name);
    principal.auth_time = auth_time;
    principal.kind = principal::Kind::Person;
    principal.owners = Vec::new();
    principal.groups = vec!["dba".to_owned()];
    Ok(principal)
}

#[derive(Default)]
struct NoSessions(Mutex<Vec<Identity>>);

impl Sessions for NoSessions {
    fn list(&self) -> Vec<SessionView> {
        Vec::new()
    }

    fn count(&self) -> usize {
        0
    }

    fn revoke(&self, identity: &Identity) -> usize {
        self.0.lock().unwrap().push(identity.clone());
        1
    }

    fn has(&self, id: &SessionId) -> bool {
        *id == SessionId::from_random(1)
    }

    fn kill(&self, id: &SessionId) -> bool {
        self.has(id)
    }
}

pub(super) struct Gateway {
    pub(super) desk: Desk,
    pub(super) base: String,
    pub(super) http: HttpClient,
}

impl Gateway {
    pub(super) async fn start() -> Self {
        Self::beside(None).await
    }

    /// One of several.
    pub(super) async fn beside(others: Option<Arc<dyn Others>>) -> Self {
        let desk = Desk::new();
        let may = |reviewers| Integration {
            secret: holdpoint_core::config::SecretRef::Env("X".to_owned()),
            reviewers,
        };
        let rita = Reviewers::Person {
            issuer: "https://issuer.example".to_owned(),
            subject: "rita".to_owned(),
        };
        let secret = || SECRET.to_owned().into();
        let integrations = Integrations::new([
            (
                "chat".to_owned(),
                may(vec![rita, Reviewers::Group("dba".to_owned())]),
                secret(),
            ),
            ("mute".to_owned(), may(Vec::new()), secret()),
        ])
        .unwrap();
        let place = Place {
            name: "shop".to_owned(),
            protocol: "postgres".to_owned(),
            host: None,
            port: 6432,
        };
        let router = router(ApiParts {
            approvals: desk.approvals.clone(),
            board: Arc::new(desk.approvals.clone()),
            tokens: Arc::new(Names),
            integrations,
            slack: BTreeMap::new(),
            links: Arc::new(Links::open(std::path::Path::new("/nonexistent"), []).unwrap()),
            told: Arc::default(),
            public_url: None,
            sessions: Arc::new(NoSessions::default()),
            others,
            about: About::new(
                vec![place],
                vec!["https://issuer.example".to_owned()],
                Vec::new(),
            ),
            ready: Arc::new(|| Ok(())),
            counters: Arc::new(|| vec![("commands_total".to_owned(), 7)]),
            clock: desk.hands.clock(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, router, None, std::future::pending()));
        Self {
            desk,
            base,
            http: HttpClient::new(None, 1 << 20).unwrap(),
        }
    }

    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let answer = self
            .http
            .send(request, Duration::from_secs(10))
            .await
            .unwrap();
        (answer.status, answer.headers, answer.body)
    }

    pub(super) async fn json(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Value,
    ) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, _, bytes) = self
            .call(method, path, &[("authorization", bearer.as_str())], body)
            .await;
        (
            status.as_u16(),
            serde_json::from_slice(&bytes).unwrap_or_default(),
        )
    }

    pub(super) async fn hold(&self, text: &str, at: u128) -> (String, String, Waiter) {
        let draft = draft("agent", text, at);
        let (id, digest) = (draft.id.to_string(), draft.digest.to_string());
        let (_, waiter) = self.desk.approvals.open(draft, self.desk.hands.now()).await;
        (id, digest, waiter.unwrap())
    }

    /// A signed vote of integration `name`.
    pub(super) async fn signed(
        &self,
        name: &str,
        id: &str,
        webhook: &str,
        body: &Value,
    ) -> (u16, Value) {
        let raw = body.to_string();
        let unix = crate::recorder::now().unix();
        let signature = Webhook::new(SECRET)
            .unwrap()
            .sign(webhook, i64::try_from(unix).unwrap(), raw.as_bytes())
            .unwrap();
        let unix = unix.to_string();
        let headers = [
            ("holdpoint-integration", name),
            ("webhook-id", webhook),
            ("webhook-timestamp", unix.as_str()),
            ("webhook-signature", signature.as_str()),
        ];
        let path = format!("/v1/approvals/{id}/decision");
        let (status, _, bytes) = self.call("POST", &path, &headers, raw).await;
        (
            status.as_u16(),
            serde_json::from_slice(&bytes).unwrap_or_default(),
        )
    }
}

pub(super) fn decision(id: &str, digest: &str, subject: &str) -> Value {
    json!({
        "approval_id": id, "decision": "approve", "digest": digest, "reason": null, "nonce": "n1",
        "reviewer": { "issuer": "https://issuer.example", "subject": subject, "groups": ["dba", "root"] },
    })
}
