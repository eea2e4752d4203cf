#![no_main]
#![doc = "See `protosocket_testkit::operations::lines`."]

protosocket_fuzz::target!(lines);
