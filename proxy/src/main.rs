//! The one binary. `holdpoint --help` lists what it does.

use std::process::ExitCode;

/// Commands come and go on several threads, each in dozens of small pieces. Without huge pages
/// (`no_thp`): what thousands of sessions give back lies scattered, and a huge page goes back
/// only whole.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    holdpoint::cli::main()
}
