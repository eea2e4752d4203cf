//! The program: see the crate's documentation.

use std::process::ExitCode;

fn main() -> ExitCode {
    benchmarks::main()
}
