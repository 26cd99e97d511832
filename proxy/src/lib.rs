//! holdpoint: the gateway's IO and wiring. What decides lives in `holdpoint-core`,
//! what runs plugins in `holdpoint-host`; [`app`] puts the parts together.

pub mod api;
pub mod app;
pub mod approvals;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod console;
mod crash;
pub mod credential;
mod http_client;
pub mod identity;
pub mod links;
pub mod listener;
pub mod notify;
mod oidc;
mod on_call;
pub mod plugins;
pub mod recorder;
pub mod reload;
pub mod secrets;
pub mod security_keys;
pub mod session;
mod state_file;
pub mod telemetry;
mod telling;
pub mod transport;
pub mod upstream;
