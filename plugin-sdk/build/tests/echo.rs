//! The teaching plugin becomes a component, twice the same.

use std::path::Path;

#[test]
fn the_teaching_plugin_becomes_a_component() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/echo");
    // Shared with the gateway's build script, which makes the same.
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../plugins");
    let component = holdpoint_plugin_build::build(&crate_dir, &out).unwrap();
    let bytes = std::fs::read(&component.path).unwrap();
    // The preamble of a component, version 13, layer 1.
    assert_eq!(&bytes[..8], b"\0asm\x0d\0\x01\0");
    assert_eq!(component.path.file_name().unwrap(), "echo.wasm");
    assert_eq!(
        holdpoint_plugin_build::build(&crate_dir, &out).unwrap(),
        component
    );
}
