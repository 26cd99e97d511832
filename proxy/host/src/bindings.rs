//! What wasmtime makes of `wit/`. Types from here stay in this crate: `convert`
//! turns them into the core's.

#![allow(
    unsafe_code,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; lifting values out of a guest takes pointers"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "stream-plugin",
    // A login is a host object behind a handle.
    with: { "holdpoint:plugin/upstream-auth.exchange": crate::guest::Exchange },
    imports: { default: trappable },
});

pub use exports::holdpoint::plugin::stream_protocol as protocol;
pub use holdpoint::plugin::{framing, host, types, upstream_auth};
