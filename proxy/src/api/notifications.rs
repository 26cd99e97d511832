//! What became of messages to reviewers.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Problem};
use crate::notify::{ChannelState, Undelivered};

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Notifications {
    pub channels: Vec<ChannelState>,
    /// Messages that were given up, the newest first; the last 256.
    pub undelivered: Vec<Undelivered>,
}

/// Lists channels, and messages that did not arrive
///
/// Since the gateway's start. Each approval shows its own under `deliveries`.
#[utoipa::path(
    get, path = "/v1/notifications", tag = "operate", security(("bearer" = [])),
    responses((status = 200, body = Notifications), (status = 401, body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Json<Notifications>, Problem> {
    api.reviewer(&headers).await?;
    let (channels, undelivered) = api.0.told.read();
    Ok(Json(Notifications {
        channels,
        undelivered,
    }))
}
