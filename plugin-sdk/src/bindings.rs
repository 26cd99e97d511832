//! What wit-bindgen makes of `wit/`. Nothing outside this crate names it: an
//! author sees the types re-exported at the crate's root.
//!
//! Off WebAssembly the types are the same, but the imports have nobody behind
//! them: [`crate::auth`] and [`crate::log`] ask [`crate::testing`] there.

#![allow(
    unsafe_code,
    unreachable_pub,
    missing_docs,
    clippy::all,
    reason = "generated; crossing into WebAssembly takes pointers"
)]

wit_bindgen::generate!({
    path: "../wit",
    world: "stream-plugin",
    additional_derives: [PartialEq, Eq],
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "holdpoint_plugin::bindings",
});
