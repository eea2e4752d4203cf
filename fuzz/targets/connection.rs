#![no_main]
#![doc = "See `protosocket_testkit::operations::connection`."]

protosocket_fuzz::target!(connection);
