//! Builds the plugins that the binary carries; `src/plugins` includes the result.
//!
//! Writes `OUT_DIR/shipped.rs` with `SHIPPED`; what is in it and which variable
//! takes components built before is said at `build_shipped`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match holdpoint_plugin_build::build_shipped(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
        &["plugins/echo", "plugins/postgres"],
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo:error={error}");
            ExitCode::FAILURE
        }
    }
}
