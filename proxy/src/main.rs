//! The one binary. `holdpoint --help` lists what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdpoint::cli::main()
}
