//! A person who reviews, over the HTTP API.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

#[derive(Clone)]
pub struct Reviewer {
    admin: SocketAddr,
    token: String,
}

impl Reviewer {
    pub fn new(admin: SocketAddr, token: impl Into<String>) -> Self {
        Self {
            admin,
            token: token.into(),
        }
    }

    /// Waits for a pending approval whose text contains `text`.
    pub async fn pending(&self, text: &str) -> Value {
        for _ in 0..500 {
            let (status, list) = self
                .call(Method::GET, "/v1/approvals?state=pending", None)
                .await;
            assert_eq!(status, StatusCode::OK, "{list}");
            let all = list["approvals"].as_array().cloned().unwrap_or_default();
            let hit = all.into_iter().find(|one| {
                one["shown"]["text"]
                    .as_str()
                    .is_some_and(|shown| shown.contains(text))
            });
            if let Some(found) = hit {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nothing pending with {text:?} within 10 s");
    }

    pub async fn approve(&self, view: &Value) -> (StatusCode, Value) {
        self.decide(view, "approve", None).await
    }

    pub async fn deny(&self, view: &Value, reason: &str) -> (StatusCode, Value) {
        self.decide(view, "deny", Some(reason)).await
    }

    /// Decides over what `view` showed.
    pub async fn decide(
        &self,
        view: &Value,
        decision: &str,
        reason: Option<&str>,
    ) -> (StatusCode, Value) {
        let path = format!("/v1/approvals/{}/decision", view["id"].as_str().unwrap());
        let body = json!({ "decision": decision, "digest": view["digest"], "reason": reason });
        self.call(Method::POST, &path, Some(body)).await
    }

    pub async fn show(&self, id: &str) -> Value {
        self.call(Method::GET, &format!("/v1/approvals/{id}"), None)
            .await
            .1
    }

    /// Approves whatever is pending, until the gateway is gone.
    pub async fn approve_all(&self) {
        let headers = [("authorization".to_owned(), format!("Bearer {}", self.token))];
        let call = async |method, path: &str, body: String| {
            try_request(self.admin, method, path, &headers, body).await
        };
        let pending = "/v1/approvals?state=pending";
        while let Some((_, list)) = call(Method::GET, pending, String::new()).await {
            for view in list["approvals"].as_array().into_iter().flatten() {
                let path = format!("/v1/approvals/{}/decision", view["id"].as_str().unwrap());
                let body = json!({ "decision": "approve", "digest": view["digest"] });
                call(Method::POST, &path, body.to_string()).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One call with this reviewer's token.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let headers = [("authorization".to_owned(), format!("Bearer {}", self.token))];
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        request(self.admin, method, path, &headers, body).await
    }
}

/// One plain call to the admin listener.
pub async fn request(
    admin: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(String, String)],
    body: impl Into<Bytes>,
) -> (StatusCode, Value) {
    try_request(admin, method, path, headers, body)
        .await
        .unwrap()
}

/// As [`request`], of a gateway that may be gone.
pub async fn try_request(
    admin: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(String, String)],
    body: impl Into<Bytes>,
) -> Option<(StatusCode, Value)> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{admin}{path}"))
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = client
        .request(request.body(Full::new(body.into())).unwrap())
        .await
        .ok()?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await.ok()?.to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    Some((
        status,
        serde_json::from_slice(&bytes).unwrap_or_else(|_| text()),
    ))
}
