//! What happens to approvals, as server-sent events.
//!
//! The last events are kept, numbered, so that a client that was cut off goes on where it was
//! (`Last-Event-ID`). One that was away for too long, or comes from before a restart, is told to
//! forget what it knows (`reset`) and gets all that is pending. Nothing is lost in between: the
//! number is taken before the look.
//!
//! A stream costs a connection and no more: who reads slowly is sent less often, and skips
//! to a `reset` where it falls too far behind.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};

use super::auth::bearer;
use super::{Api, Problem};
use crate::approvals::{Board, Change, View};

/// Events that can be asked for again.
const KEEP: usize = 1_024;

/// Streams at once; each costs a connection.
pub(super) const MAX_STREAMS: usize = 512;

/// Something is sent at least this often, so that both sides notice an end.
const ALIVE: Duration = Duration::from_secs(15);

/// A token is looked at again this often.
const RECHECK: Duration = Duration::from_secs(60);

/// Written and not yet read, of one stream.
const AHEAD: usize = 8;

/// The last events, and the news that there are more.
pub(super) struct Events {
    /// Of this process: numbers of another mean nothing here.
    run: String,
    kept: Mutex<Kept>,
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    /// The number of the newest.
    last: u64,
    events: VecDeque<Change>,
}

impl Kept {
    /// What came after `number`; `None` where some of it is gone.
    fn after(&self, number: u64) -> Option<Vec<(u64, Change)>> {
        let first = self.last - self.events.len() as u64;
        let skip = usize::try_from(number.checked_sub(first)?).ok()?;
        (number <= self.last).then(|| {
            let rest = self.events.iter().enumerate().skip(skip);
            rest.map(|(at, change)| (first + at as u64 + 1, change.clone()))
                .collect()
        })
    }
}

impl Events {
    /// Follows `approvals` for as long as they are there.
    pub(super) fn follow(approvals: &dyn Board) -> Arc<Self> {
        let mut run = [0; 6];
        // Without randomness two processes could share a number, and a client would miss a reset.
        if getrandom::fill(&mut run).is_err() {
            run = std::process::id().to_be_bytes().repeat(2)[..6]
                .try_into()
                .unwrap_or(run);
        }
        let this = Arc::new(Self {
            run: hex::encode(run),
            kept: Mutex::default(),
            last: watch::Sender::new(0),
        });
        let mut changes = approvals.subscribe();
        let events = Arc::clone(&this);
        tokio::spawn(async move {
            loop {
                match changes.recv().await {
                    Ok(change) => events.add(Some(change)),
                    Err(RecvError::Lagged(_)) => events.add(None),
                    Err(RecvError::Closed) => return,
                }
            }
        });
        this
    }

    /// `None` stands for what was missed: whoever is before it is behind.
    fn add(&self, change: Option<Change>) {
        let mut kept = self.kept();
        kept.last += 1;
        match change {
            Some(change) => kept.events.push_back(change),
            None => kept.events.clear(),
        }
        if kept.events.len() > KEEP {
            kept.events.pop_front();
        }
        let last = kept.last;
        drop(kept);
        self.last.send_replace(last);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number in an id of ours.
    fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&self.run)?.strip_prefix('-')?.parse().ok()
    }
}

/// Follows approvals: an event for each change, and first all that is pending
///
/// Server-sent events. `approval` has an approval as `/v1/approvals/{id}` gives it; `reset`
/// says that what is known so far is to be forgotten. With `Last-Event-ID` a stream goes on
/// where another ended, if that is not too long ago. It ends when the token does.
#[utoipa::path(
    get, path = "/v1/approvals/events", tag = "review", security(("bearer" = [])),
    params(("Last-Event-ID" = Option<String>, Header, description = "The last event's id, to go on from there")),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 401, body = Problem), (status = 503, body = Problem),
    ),
)]
pub(super) async fn events(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    api.reviewer(&headers).await?;
    let token = Bytes::copy_from_slice(bearer(&headers)?);
    let Ok(turn) = Arc::clone(&api.0.streams).try_acquire_owned() else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "HP-LIMIT",
            "too many callers follow",
        ));
    };
    let from = headers.get("last-event-id");
    let from = from.and_then(|id| api.0.events.number(id.to_str().ok()?));
    let (out, body) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let _turn = turn;
        // Both ends are told by what happened to the connection.
        let _ = tell(&api, &token, from, &out).await;
    });
    let mut response = Body::new(Stream(body)).into_response();
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// The reader is gone, or its token.
struct Over;

async fn tell(
    api: &Api,
    token: &[u8],
    from: Option<u64>,
    out: &mpsc::Sender<Bytes>,
) -> Result<(), Over> {
    let events = &api.0.events;
    let mut news = events.last.subscribe();
    let mut recheck = tokio::time::interval(RECHECK);
    recheck.tick().await;
    let mut at = from;
    loop {
        news.borrow_and_update();
        let found = at.and_then(|at| events.kept().after(at));
        match found {
            Some(more) => {
                for (number, change) in more {
                    send(out, event(&events.run, number, change.view())).await?;
                    at = Some(number);
                }
            }
            None => {
                let number = events.kept().last;
                let reset = format!("id: {}-{number}\nevent: reset\ndata: {{}}\n\n", events.run);
                send(out, reset).await?;
                // Oldest first, as they came.
                for view in api.0.board.list().iter().rev() {
                    if !view.is_decided() {
                        send(out, event(&events.run, number, view)).await?;
                    }
                }
                at = Some(number);
            }
        }
        loop {
            tokio::select! {
                changed = news.changed() => {
                    changed.map_err(|_| Over)?;
                    break;
                }
                () = tokio::time::sleep(ALIVE) => send(out, ": alive\n\n".to_owned()).await?,
                _ = recheck.tick() => {
                    api.0.tokens.review(token, api.now()).await.map_err(|_| Over)?;
                }
                () = out.closed() => return Err(Over),
            }
        }
    }
}

async fn send(out: &mpsc::Sender<Bytes>, text: String) -> Result<(), Over> {
    out.send(Bytes::from(text)).await.map_err(|_| Over)
}

fn event(run: &str, number: u64, view: &View) -> String {
    // Strings and numbers only: it cannot fail. JSON has no line feeds of its own.
    let data = serde_json::to_string(view).unwrap_or_default();
    format!("id: {run}-{number}\nevent: approval\ndata: {data}\n\n")
}

/// A body that is what a channel brings.
struct Stream(mpsc::Receiver<Bytes>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_known_as_missed() {
        let mut kept = Kept {
            last: 7,
            events: VecDeque::new(),
        };
        // Up to date is not behind; anything before is, as is a number from nowhere.
        assert!(kept.after(7).is_some_and(|more| more.is_empty()));
        assert!(kept.after(6).is_none() && kept.after(8).is_none());
        kept.last = 0;
        assert!(kept.after(0).is_some());
    }
}
