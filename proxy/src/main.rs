//! The one binary. `holdpoint --help` lists what it does.

use std::process::ExitCode;

/// Commands come and go on several threads, each in dozens of small pieces.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    holdpoint::cli::main()
}
