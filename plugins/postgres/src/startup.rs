//! The packets before login, and the one startup packet sent on.
//!
//! What a client may set at startup is a list. A parameter that is not on it is
//! refused by name: `search_path`, `role`, `options` and their like change what
//! later text means before any command could be judged (CVE-2025-12819).

use crate::frame::{Malformed, Reader};

pub(crate) const VERSION_3_0: u32 = 3 << 16;
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The server's own limit on a startup packet.
const MAX_PACKET: usize = 10_000;

/// Parameters that change how values look or how long the client waits, and
/// nothing of what a statement means. In lower case; the server folds too.
const ALLOWED: &[&str] = &[
    "application_name",
    "bytea_output",
    "datestyle",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "statement_timeout",
    "timezone",
];

/// A packet without a kind byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Ssl,
    Gss,
    Cancel(Vec<u8>),
    Startup(Startup),
}

/// A login as asked for by the client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Startup {
    pub(crate) user: String,
    pub(crate) database: Option<String>,
    /// Allowed ones only, as the client wrote them.
    pub(crate) parameters: Vec<(String, String)>,
    /// Protocol options that are not known here.
    pub(crate) unknown_options: Vec<String>,
    /// The client asked for a minor version above 3.0.
    pub(crate) newer: bool,
}

/// Why a startup packet is not served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StartupError {
    #[error("the startup packet is not valid: {0}")]
    Malformed(#[from] Malformed),
    #[error("protocol {major}.{minor} is not spoken here, only 3.0")]
    Version { major: u32, minor: u32 },
    #[error("startup parameter `{name}` is not accepted")]
    Parameter { name: String },
    #[error("client_encoding `{value}` is not accepted, only UTF8")]
    Encoding { value: String },
    #[error("standard_conforming_strings must be `on`")]
    Strings,
    #[error("replication connections are not served")]
    Replication,
}

impl StartupError {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "connect with a PostgreSQL client",
            Self::Version { .. } => "use a client that speaks protocol 3, PostgreSQL 7.4 or later",
            Self::Parameter { .. } => {
                "take it out of the connection string, `options` and the PG* variables; \
                 use SET after login, where policy can see it"
            }
            Self::Encoding { .. } => "set client_encoding or PGCLIENTENCODING to UTF8",
            Self::Strings => "leave standard_conforming_strings at its default",
            Self::Replication => "take `replication` out of the connection string",
        }
    }

    pub(crate) fn sqlstate(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "08P01",
            Self::Parameter { .. } | Self::Encoding { .. } | Self::Strings => "22023",
            Self::Version { .. } | Self::Replication => "0A000",
        }
    }
}

/// Reads a packet; the body begins after the length.
pub(crate) fn read(body: &[u8]) -> Result<Packet, StartupError> {
    if body.len() > MAX_PACKET {
        return Err(Malformed("longer than 10,000 bytes").into());
    }
    let mut reader = Reader::new(body);
    let code = reader.u32()?;
    match code {
        SSL | GSS if !reader.is_empty() => Err(Malformed("bytes behind a request").into()),
        SSL => Ok(Packet::Ssl),
        GSS => Ok(Packet::Gss),
        CANCEL => {
            let key = reader.rest();
            if key.len() != 8 {
                return Err(Malformed("a cancel key of the wrong length").into());
            }
            Ok(Packet::Cancel(key.to_vec()))
        }
        version => startup(version, &mut reader).map(Packet::Startup),
    }
}

fn startup(version: u32, reader: &mut Reader<'_>) -> Result<Startup, StartupError> {
    let (major, minor) = (version >> 16, version & 0xffff);
    if major != 3 {
        return Err(StartupError::Version { major, minor });
    }
    let mut startup = Startup {
        newer: minor > 0,
        ..Startup::default()
    };
    let mut seen: Vec<String> = Vec::new();
    loop {
        let name = text(reader.string()?)?;
        if name.is_empty() {
            break;
        }
        let value = text(reader.string()?)?;
        let folded = name.to_ascii_lowercase();
        if seen.contains(&folded) {
            // Which of the two the server takes is nobody's business to guess.
            return Err(Malformed("a parameter is given twice").into());
        }
        startup.take(name, &folded, value)?;
        seen.push(folded);
    }
    if !reader.is_empty() {
        return Err(Malformed("bytes after the last parameter").into());
    }
    if startup.user.is_empty() {
        return Err(Malformed("no user is named").into());
    }
    Ok(startup)
}

impl Startup {
    fn take(&mut self, name: &str, folded: &str, value: &str) -> Result<(), StartupError> {
        match folded {
            "user" => value.clone_into(&mut self.user),
            "database" if value.is_empty() => {}
            "database" => self.database = Some(value.to_owned()),
            "client_encoding" if is_utf8(value) => {}
            "client_encoding" => {
                return Err(StartupError::Encoding {
                    value: shown(value),
                });
            }
            "standard_conforming_strings" if value.eq_ignore_ascii_case("on") => {}
            "standard_conforming_strings" => return Err(StartupError::Strings),
            "options" if value.trim().is_empty() => {}
            "replication" => return Err(StartupError::Replication),
            _ if folded.starts_with("_pq_.") => self.unknown_options.push(name.to_owned()),
            _ if ALLOWED.contains(&folded) => {
                self.parameters.push((name.to_owned(), value.to_owned()));
            }
            _ => return Err(StartupError::Parameter { name: shown(name) }),
        }
        Ok(())
    }

    /// The packet for the target. Encoding and string syntax are pinned, since
    /// the classifier reads text under exactly these.
    pub(crate) fn packet(&self, user: &str, database: Option<&str>) -> Vec<u8> {
        let mut body = VERSION_3_0.to_be_bytes().to_vec();
        let mut field = |name: &str, value: &str| {
            for text in [name, value] {
                body.extend(text.bytes().filter(|b| *b != 0));
                body.push(0);
            }
        };
        field("user", user);
        if let Some(database) = database {
            field("database", database);
        }
        for (name, value) in &self.parameters {
            field(name, value);
        }
        field("client_encoding", "UTF8");
        field("standard_conforming_strings", "on");
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        [&length.to_be_bytes()[..], &body].concat()
    }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a parameter is not UTF-8"))
}

/// `UTF8`, `utf-8`, `'utf-8'` (asyncpg quotes it), `unicode`.
pub(crate) fn is_utf8(value: &str) -> bool {
    let plain: String = value
        .trim_matches(|c: char| c == '\'' || c.is_ascii_whitespace())
        .chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .collect();
    plain.eq_ignore_ascii_case("utf8") || plain.eq_ignore_ascii_case("unicode")
}

/// Client text inside a message: short and without control characters.
fn shown(text: &str) -> String {
    text.chars()
        .take(63)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Any bytes must be read or refused, never panic.
pub fn fuzz_startup(data: &[u8]) {
    if let Ok(Packet::Startup(startup)) = read(data) {
        let _ = startup.packet("app", startup.database.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut body = VERSION_3_0.to_be_bytes().to_vec();
        for (name, value) in parameters {
            for text in [name, value] {
                body.extend_from_slice(text.as_bytes());
                body.push(0);
            }
        }
        body.push(0);
        body
    }

    fn refused(parameters: &[(&str, &str)]) -> String {
        let mut all = vec![("user", "agent")];
        all.extend_from_slice(parameters);
        read(&packet(&all)).unwrap_err().to_string()
    }

    #[test]
    fn parameters_outside_the_list_are_refused_by_name() {
        for name in [
            "search_path",
            "role",
            "session_authorization",
            "Search_Path",
            "geqo",
            "x",
        ] {
            assert_eq!(
                refused(&[(name, "x")]),
                format!("startup parameter `{name}` is not accepted")
            );
        }
        assert_eq!(
            refused(&[("options", "-c search_path=evil")]),
            "startup parameter `options` is not accepted"
        );
        assert_eq!(
            refused(&[("replication", "true")]),
            "replication connections are not served"
        );
        assert_eq!(
            refused(&[("client_encoding", "SJIS")]),
            "client_encoding `SJIS` is not accepted, only UTF8"
        );
        assert_eq!(
            refused(&[("standard_conforming_strings", "off")]),
            "standard_conforming_strings must be `on`"
        );
        assert!(refused(&[("USER", "root")]).contains("given twice"));
    }

    #[test]
    fn drivers_startup_packets_are_accepted() {
        // What libpq, asyncpg, pgjdbc, tokio-postgres and sqlx send, in that order.
        let cases: &[&[(&str, &str)]] = &[
            &[
                ("application_name", "psql"),
                ("client_encoding", "UTF8"),
                ("options", ""),
            ],
            &[("client_encoding", "'utf-8'")],
            &[
                ("DateStyle", "ISO"),
                ("TimeZone", "Europe/Berlin"),
                ("extra_float_digits", "2"),
            ],
            &[("client_encoding", "UTF8"), ("application_name", "app")],
            &[
                ("DateStyle", "ISO, MDY"),
                ("TimeZone", "UTC"),
                ("IntervalStyle", "iso_8601"),
            ],
        ];
        for case in cases {
            let mut all = vec![("user", "agent"), ("database", "shop")];
            all.extend_from_slice(case);
            assert!(
                matches!(read(&packet(&all)), Ok(Packet::Startup(_))),
                "{case:?}"
            );
        }
    }

    #[test]
    fn the_target_gets_its_own_account_and_pinned_settings() {
        let Ok(Packet::Startup(startup)) = read(&packet(&[
            ("user", "agent"),
            ("database", "shop"),
            ("application_name", "psql"),
        ])) else {
            panic!("not a startup packet")
        };
        let sent = startup.packet("app", startup.database.as_deref());
        assert_eq!(
            sent[..8],
            [0, 0, 0, u8::try_from(sent.len()).unwrap(), 0, 3, 0, 0]
        );
        assert_eq!(
            String::from_utf8_lossy(&sent[8..]).replace('\0', "|"),
            "user|app|database|shop|application_name|psql|client_encoding|UTF8|\
             standard_conforming_strings|on||"
        );
    }

    #[test]
    fn requests_are_told_apart() {
        assert_eq!(read(&SSL.to_be_bytes()), Ok(Packet::Ssl));
        assert_eq!(read(&GSS.to_be_bytes()), Ok(Packet::Gss));
        assert!(
            read(&[&SSL.to_be_bytes()[..], b"x"].concat()).is_err(),
            "bytes behind it"
        );
        let cancel = [&CANCEL.to_be_bytes()[..], b"12345678"].concat();
        assert_eq!(read(&cancel), Ok(Packet::Cancel(b"12345678".to_vec())));
        assert!(read(&cancel[..11]).is_err(), "a key that is cut off");
        assert_eq!(
            read(&(2u32 << 16).to_be_bytes()),
            Err(StartupError::Version { major: 2, minor: 0 })
        );
        assert!(read(&[0, 3]).is_err());
        assert!(read(&[0; MAX_PACKET + 1]).is_err());
    }

    #[test]
    fn newer_clients_are_negotiated_down() {
        let mut body = packet(&[("user", "agent"), ("_pq_.command_compression", "on")]);
        body[3] = 2;
        let Ok(Packet::Startup(startup)) = read(&body) else {
            panic!("refused")
        };
        assert!(startup.newer);
        assert_eq!(startup.unknown_options, ["_pq_.command_compression"]);
    }

    proptest! {
        #[test]
        fn any_packet_is_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            fuzz_startup(&data);
            fuzz_startup(&[&VERSION_3_0.to_be_bytes()[..], &data].concat());
        }
    }
}
