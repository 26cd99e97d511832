//! What the plugin tells the gateway about PostgreSQL before any connection.

use holdpoint_plugin::{Descriptor, Side};

use crate::classify::Class;
use crate::frame;
use crate::reply;

const PORT: u16 = 5432;
/// What libpq 17 and later offer with `sslnegotiation=direct`.
const ALPN: &str = "postgresql";

/// The text that gives up a transaction of which a command was refused here.
pub(crate) const UNDO: &str = "ROLLBACK";

/// As a simple Query.
fn undo() -> Vec<u8> {
    let mut out = Vec::new();
    reply::message(&mut out, b'Q', |body| {
        body.extend_from_slice(UNDO.as_bytes());
        body.push(0);
    });
    out
}

/// Both sides start in the login, in which every message counts.
pub fn describe() -> Descriptor {
    Descriptor {
        name: "postgres".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        default_port: Some(PORT),
        direct_tls_alpn: Some(ALPN.to_owned()),
        client_layout: frame::startup_layout(),
        upstream_layout: frame::typed_layout(),
        subscriptions: vec![
            frame::show_all(Side::Client),
            frame::show_all(Side::Upstream),
        ],
        classes: Class::ALL
            .iter()
            .map(|class| class.word().to_owned())
            .collect(),
        undo: Some(undo()),
    }
}
