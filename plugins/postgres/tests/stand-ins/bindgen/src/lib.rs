//! Ready-made bindings under bindgen's name.
//!
//! `pg_query`, the oracle of the differential test, makes its bindings at build
//! time, for which bindgen needs libclang: some 100 MB that a bare machine does
//! not have. `libpg_query.rs` holds what the crate uses of `pg_query.h`, written
//! by hand. To be checked against the header whenever `pg_query` moves: this
//! refuses every header but the one of the version it was written for.

use std::fmt;
use std::io;
use std::path::Path;

const BINDINGS: &str = include_str!("libpg_query.rs");
/// A line of the header these bindings were written for.
const KNOWN: &str = "#define PG_VERSION \"18.6\"";

#[derive(Debug, Default)]
pub struct Builder {
    header: String,
}

impl Builder {
    pub fn header(mut self, header: impl Into<String>) -> Self {
        self.header = header.into();
        self
    }

    /// # Errors
    /// The header is not the one that the bindings were written for.
    pub fn generate(self) -> Result<Bindings, BindgenError> {
        let known = std::fs::read_to_string(&self.header).is_ok_and(|text| text.contains(KNOWN));
        if known {
            Ok(Bindings)
        } else {
            Err(BindgenError(self.header))
        }
    }
}

#[derive(Debug)]
pub struct Bindings;

impl Bindings {
    /// # Errors
    /// The file cannot be written.
    pub fn write_to_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(path, BINDINGS)
    }
}

#[derive(Debug)]
pub struct BindgenError(String);

impl fmt::Display for BindgenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no ready-made bindings for {}: compare plugins/postgres/tests/stand-ins/bindgen with it",
            self.0
        )
    }
}

impl std::error::Error for BindgenError {}
