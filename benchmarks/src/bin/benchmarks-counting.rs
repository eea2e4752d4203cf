//! The same program with an allocator that counts.
//!
//! Counting costs time in every allocation, so `benchmarks` starts this one only as the server
//! whose live heap it asks for.

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    benchmarks::main()
}
