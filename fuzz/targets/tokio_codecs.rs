#![no_main]
#![doc = "See `protosocket_testkit::operations::tokio_codecs`."]

protosocket_fuzz::target!(tokio_codecs);
