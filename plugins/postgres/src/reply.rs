//! Messages that the gateway says in the server's place, and what it reads in
//! the server's own.
//!
//! A refusal has the form of the server's errors, so that every driver knows
//! what to do with it: the sentence is the message, the stable code leads the
//! detail, the next step is the hint.

use holdpoint_plugin::{Refusal, RefusalKind};

use crate::frame::Reader;

/// "Current transaction is aborted", the server's own words.
const ABORTED: &str = "25P02";
/// The gateway's own: held, ask again.
const PENDING: &str = "HP001";
const EXPIRED: &str = "HP002";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    Notice,
    Error,
    /// The session is over.
    Fatal,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Notice => "NOTICE",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// One message: kind, length, and the body that `fill` writes.
pub(crate) fn message(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(at..at + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Text on the wire ends at a NUL, so none may stand inside.
fn string(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().map(|b| if b == 0 { b'?' } else { b }));
    out.push(0);
}

/// ErrorResponse or NoticeResponse.
pub(crate) fn report(
    out: &mut Vec<u8>,
    severity: Severity,
    sqlstate: &str,
    text: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) {
    let kind = if severity == Severity::Notice {
        b'N'
    } else {
        b'E'
    };
    message(out, kind, |body| {
        let fields = [
            (b'S', Some(severity.word())),
            (b'V', Some(severity.word())),
            (b'C', Some(sqlstate)),
            (b'M', Some(text)),
            (b'D', detail),
            (b'H', hint),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                body.push(field);
                string(body, value);
            }
        }
        body.push(0);
    });
}

/// A refusal of one command, or of the session when `severity` is fatal.
pub(crate) fn refusal(out: &mut Vec<u8>, severity: Severity, refusal: &Refusal) {
    let sqlstate = match refusal.kind {
        RefusalKind::Denied => "42501",
        RefusalKind::Pending => PENDING,
        RefusalKind::Expired => EXPIRED,
        RefusalKind::Unauthenticated => "28000",
        RefusalKind::Malformed => "08P01",
        // Drivers take 57P01 as "this connection is dead", which is so only when it ends.
        RefusalKind::Unavailable if severity == Severity::Fatal => "57P01",
        RefusalKind::Unavailable => "58000",
    };
    let detail = match &refusal.detail {
        Some(detail) => format!("{}: {detail}", refusal.code),
        None => refusal.code.clone(),
    };
    report(
        out,
        severity,
        sqlstate,
        &refusal.message,
        Some(&detail),
        refusal.hint.as_deref(),
    );
}

/// What the server says inside a failed transaction.
pub(crate) fn aborted(out: &mut Vec<u8>, commit: bool) {
    let hint = if commit {
        "a command of this transaction was refused: send ROLLBACK, nothing was committed"
    } else {
        "a command of this transaction was refused: send ROLLBACK, then begin again"
    };
    report(
        out,
        Severity::Error,
        ABORTED,
        "current transaction is aborted, commands ignored until end of transaction block",
        None,
        Some(hint),
    );
}

/// EmptyQueryResponse.
pub(crate) fn empty_query(out: &mut Vec<u8>) {
    message(out, b'I', |_| {});
}

pub(crate) fn notice(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    report(&mut out, Severity::Notice, PENDING, text, None, None);
    out
}

/// BindComplete.
pub(crate) fn bind_complete(out: &mut Vec<u8>) {
    message(out, b'2', |_| {});
}

/// NoData: a statement without rows was described.
pub(crate) fn no_data(out: &mut Vec<u8>) {
    message(out, b'n', |_| {});
}

/// ReadyForQuery with the transaction status `I`, `T` or `E`.
pub(crate) fn ready(out: &mut Vec<u8>, status: u8) {
    message(out, b'Z', |body| body.push(status));
}

/// Authentication request of one of the kinds that carry no data.
pub(crate) fn authentication(out: &mut Vec<u8>, code: u32) {
    message(out, b'R', |body| {
        body.extend_from_slice(&code.to_be_bytes())
    });
}

/// BackendKeyData: what the client presents to cancel.
pub(crate) fn key(out: &mut Vec<u8>, key: &[u8]) {
    message(out, b'K', |body| body.extend_from_slice(key));
}

/// "Speak 3.0", and which protocol options are not known here.
pub(crate) fn negotiate(out: &mut Vec<u8>, unknown: &[&str]) {
    message(out, b'v', |body| {
        body.extend_from_slice(&crate::startup::VERSION_3_0.to_be_bytes());
        body.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(0).to_be_bytes());
        for name in unknown {
            string(body, name);
        }
    });
}

/// What an ErrorResponse says, as far as it may be repeated.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerError {
    pub(crate) severity: String,
    pub(crate) sqlstate: String,
    /// May quote values: for the client only, never for a record.
    pub(crate) message: String,
}

impl ServerError {
    /// A target that sends garbage gives an error with empty fields.
    pub(crate) fn read(body: &[u8]) -> Self {
        let mut error = Self::default();
        let mut reader = Reader::new(body);
        while let Ok(field) = reader.byte() {
            if field == 0 {
                break;
            }
            let Ok(value) = reader.string() else { break };
            let text = || String::from_utf8_lossy(&value[..value.len().min(200)]).into_owned();
            match field {
                b'V' => error.severity = text(),
                b'S' if error.severity.is_empty() => error.severity = text(),
                b'C' if value.len() == 5 && value.iter().all(u8::is_ascii_alphanumeric) => {
                    error.sqlstate = text();
                }
                b'M' => error.message = text(),
                _ => {}
            }
        }
        error
    }

    /// Whether the server closes the connection behind it.
    pub(crate) fn ends_session(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// For the record: no message, since it may quote a value.
    pub(crate) fn status(&self) -> String {
        let severity = match self.severity.as_str() {
            known @ ("ERROR" | "FATAL" | "PANIC") => known,
            _ => "ERROR",
        };
        match self.sqlstate.as_str() {
            "" => severity.to_owned(),
            state => format!("{severity} {state}"),
        }
    }
}

/// The rows of a CommandComplete tag such as `INSERT 0 5` or `SELECT 3`.
pub(crate) fn rows(tag: &str) -> Option<u64> {
    let (word, _) = tag.split_once(' ')?;
    match word {
        "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "FETCH" | "MOVE" | "COPY" => {
            tag.rsplit(' ').next()?.parse().ok()
        }
        _ => None,
    }
}

/// Any bytes must be read or refused, never panic.
pub fn fuzz_upstream(data: &[u8]) {
    let error = ServerError::read(data);
    let _ = error.status();
    let _ = rows(&error.message);
}

/// The same error without what may quote rows: detail, context, and a query of the server's own.
/// `None` where it has none of them.
pub(crate) fn without_values(body: &[u8]) -> Option<Vec<u8>> {
    const QUOTING: [u8; 3] = [b'D', b'W', b'q'];
    let mut reader = Reader::new(body);
    let (mut kept, mut left_out) = (Vec::with_capacity(body.len()), false);
    while let Ok(field) = reader.byte() {
        if field == 0 {
            break;
        }
        let Ok(value) = reader.string() else { break };
        if QUOTING.contains(&field) {
            left_out = true;
            continue;
        }
        kept.push(field);
        kept.extend_from_slice(value);
        kept.push(0);
    }
    left_out.then(|| {
        let mut out = Vec::new();
        message(&mut out, b'E', |body| {
            body.extend_from_slice(&kept);
            body.push(0);
        });
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(detail: Option<&str>) -> Refusal {
        Refusal {
            kind: RefusalKind::Denied,
            code: "HP-DENIED".to_owned(),
            message: "no\0way".to_owned(),
            detail: detail.map(str::to_owned),
            hint: None,
        }
    }

    #[test]
    fn a_refusal_reads_like_an_error_of_the_server() {
        let mut out = Vec::new();
        refusal(&mut out, Severity::Error, &denied(Some("why")));
        assert_eq!(
            out,
            b"E\0\0\0\x32SERROR\0VERROR\0C42501\0Mno?way\0DHP-DENIED: why\0\0".to_vec()
        );
    }

    #[test]
    fn an_error_is_recorded_without_its_message() {
        let error = ServerError::read(b"SFEHLER\0VERROR\0C23505\0MKey (a)=(secret) exists\0\0");
        assert_eq!(error.status(), "ERROR 23505");
        assert_eq!(
            ServerError::read(b"Cxx\0").status(),
            "ERROR",
            "CVE-2026-6666: no SQLSTATE"
        );
    }

    #[test]
    fn tags_give_rows() {
        for (tag, expected) in [
            ("INSERT 0 5", Some(5)),
            ("SELECT 12", Some(12)),
            ("CREATE TABLE", None),
            ("BEGIN", None),
            ("COPY 18446744073709551616", None),
        ] {
            assert_eq!(rows(tag), expected, "{tag}");
        }
    }
}
