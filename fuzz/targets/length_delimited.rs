#![no_main]
#![doc = "See `protosocket_testkit::operations::length_delimited`."]

protosocket_fuzz::target!(length_delimited);
