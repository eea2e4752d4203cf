//! What all fuzz targets share: an allocator that counts, and one line for each target.

use protosocket_testkit::{CountingAllocator, INSTRUMENTED_SYSTEM};

#[doc(hidden)]
pub use {libfuzzer_sys, protosocket_testkit::operations};

/// Lets the targets see what a decoder allocates.
#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

/// Make a target of a function of `protosocket_testkit::operations`, and of what makes a codec if it
/// wants one.
#[macro_export]
macro_rules! target {
    ($operation:ident $(, $make:expr)?) => {
        $crate::libfuzzer_sys::fuzz_target!(
            |bytes: &[u8]| $crate::operations::$operation(bytes $(, $make)?)
        );
    };
}
