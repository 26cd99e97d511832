//! What a caller is told when a request is refused: `application/problem+json`
//! (RFC 9457) with one of the stable codes of `docs/codes.md`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdpoint_core::approval::{JustifyError, SignIn, VoteError};
use holdpoint_core::denial::Denial;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::approvals::{Explained, JustifyRefused, VoteRefused};

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` says what it is.
    pub r#type: String,
    pub title: String,
    pub status: u16,
    /// Stable, see `docs/codes.md`.
    pub code: String,
    pub detail: String,
    /// The next step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// The approval's state, where that is why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<String>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            r#type: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Refused").to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: detail.into(),
            hint: None,
            state: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into());
        self
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "HP-REQUEST", detail)
    }

    /// The same whether it does not exist or is not the caller's to see.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "HP-NOT-FOUND",
            format!("there is no such {what}"),
        )
    }

    pub fn no_credentials() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "HP-TOKEN-INVALID",
            "this needs a bearer token",
        )
        .hint("send `Authorization: Bearer TOKEN`")
    }
}

impl From<Denial> for Problem {
    /// A token that was refused.
    fn from(denial: Denial) -> Self {
        let status = match denial.code.as_str() {
            "HP-SCOPE" => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        let mut problem = Self::new(status, &denial.code, denial.message);
        problem.hint = denial.hint;
        problem
    }
}

impl From<VoteRefused> for Problem {
    fn from(refused: VoteRefused) -> Self {
        let text = refused.to_string();
        match refused {
            VoteRefused::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "HP-NOT-FOUND", text),
            VoteRefused::NotWritten(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "HP-JOURNAL", text)
                    .hint("the vote was not counted: cast it again")
            }
            VoteRefused::NotDelivered(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "HP-STORE", text)
                    .hint("cast it again, or at the node that holds the command")
            }
            VoteRefused::Elsewhere(why) => why.into(),
            VoteRefused::Refused { why, state } => {
                let hint = hint(&why);
                let (status, code) = match why {
                    VoteError::Final(_) | VoteError::Expired => {
                        (StatusCode::CONFLICT, "HP-SETTLED")
                    }
                    VoteError::Changed | VoteError::EarlierStep => {
                        (StatusCode::CONFLICT, "HP-VOTED")
                    }
                    VoteError::NotJustified(_) => (StatusCode::CONFLICT, "HP-NOT-JUSTIFIED"),
                    VoteError::StepUp { .. } => (StatusCode::FORBIDDEN, "HP-STEP-UP"),
                    VoteError::NotSigned(_) | VoteError::Signature(_) => {
                        (StatusCode::FORBIDDEN, "HP-SECURITY-KEY")
                    }
                    VoteError::Digest => (StatusCode::CONFLICT, "HP-DIGEST"),
                    VoteError::NoReason
                    | VoteError::NoCause
                    | VoteError::LongReason(_)
                    | VoteError::NoWindow { .. } => (StatusCode::BAD_REQUEST, "HP-REQUEST"),
                    VoteError::Own
                    | VoteError::Agent
                    | VoteError::NotEligible(_)
                    | VoteError::OtherStep { .. }
                    | VoteError::OnCall { .. }
                    | VoteError::NoGlass(_)
                    | VoteError::OwnGlass => (StatusCode::FORBIDDEN, "HP-NOT-ELIGIBLE"),
                };
                let mut problem = Self::new(status, code, text);
                problem.state = Some(state.word().to_owned());
                problem.hint = hint;
                problem
            }
        }
    }
}

/// What mends it, where the reviewer can.
fn hint(why: &VoteError) -> Option<String> {
    match why {
        VoteError::StepUp {
            max,
            why: SignIn::Old(_) | SignIn::Unknown,
            ..
        } => Some(format!(
            "approve it in the console, or `holdpoint login --review --max-age {max}` and again; a \
             denial needs no such thing"
        )),
        VoteError::StepUp { .. } => Some("the issuer's clock, or ours, is wrong".to_owned()),
        VoteError::NotSigned(_) | VoteError::Signature(_) => {
            Some("approve it in the console, with your security key".to_owned())
        }
        _ => None,
    }
}

impl From<JustifyRefused> for Problem {
    fn from(refused: JustifyRefused) -> Self {
        let text = refused.to_string();
        let (status, code) = match refused {
            JustifyRefused::Unknown(_) | JustifyRefused::Refused(JustifyError::NotYours) => {
                return Self::not_found("approval");
            }
            JustifyRefused::NotWritten(_) => {
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "HP-JOURNAL", text)
                    .hint("it was not taken: send it again");
            }
            JustifyRefused::NotDelivered(_) => {
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "HP-STORE", text)
                    .hint("say it again, or at the node that holds the command");
            }
            JustifyRefused::Elsewhere(why) => return why.into(),
            JustifyRefused::Refused(why) => match why {
                JustifyError::Final(_) | JustifyError::Expired => {
                    (StatusCode::CONFLICT, "HP-SETTLED")
                }
                JustifyError::Already => (StatusCode::CONFLICT, "HP-JUSTIFIED"),
                _ => (StatusCode::BAD_REQUEST, "HP-REQUEST"),
            },
        };
        Self::new(status, code, text)
    }
}

impl From<Explained> for Problem {
    /// What another node said.
    fn from(why: Explained) -> Self {
        let status = StatusCode::from_u16(why.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let mut problem = Self::new(status, &why.code, why.detail);
        (problem.hint, problem.state) = (why.hint, why.state);
        problem
    }
}

impl From<&Problem> for Explained {
    fn from(problem: &Problem) -> Self {
        Self {
            status: problem.status,
            code: problem.code.clone(),
            detail: problem.detail.clone(),
            hint: problem.hint.clone(),
            state: problem.state.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"holdpoint\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
