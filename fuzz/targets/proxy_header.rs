#![no_main]
#![doc = "See `protosocket_testkit::operations::proxy_header`."]

protosocket_fuzz::target!(proxy_header);
