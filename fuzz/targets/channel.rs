#![no_main]
#![doc = "See `protosocket_testkit::operations::channel`."]

protosocket_fuzz::target!(channel);
