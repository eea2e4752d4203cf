#![no_main]
#![doc = "See `protosocket_testkit::operations::machine`."]

protosocket_fuzz::target!(machine);
