//! The binary: a function of the library and its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    heartline::cli::run()
}
