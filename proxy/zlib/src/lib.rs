//! Stock zlib under zlib-ng's name.
//!
//! pingora depends on `flate2` with the `zlib-ng` backend, whose build needs
//! cmake. holdpoint compresses nothing through it, so the plain library serves;
//! its C types match those that `flate2` expects. To be checked again whenever
//! `flate2` or `libz-ng-sys` moves.
pub use libz_sys::*;
