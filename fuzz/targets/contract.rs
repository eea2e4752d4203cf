#![no_main]
#![doc = "See `protosocket_testkit::operations::contract`."]

protosocket_fuzz::target!(contract);
