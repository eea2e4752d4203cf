//! Which addresses are those of a network.

use std::net::IpAddr;

use protosocket::proxy::{Network, NetworkError};

fn contains(network: &str, address: &str) -> bool {
    let network: Network = network.parse().expect("it is a network");
    let address: IpAddr = address.parse().expect("it is an address");
    network.contains(address)
}

#[test]
fn a_network_has_the_addresses_that_begin_as_it_does() {
    for (network, inside, outside) in [
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:9.0.0.1"),
        ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.6"),
        ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.0"),
        ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", "::ffff:11.0.0.0"),
        ("::ffff:10.0.0.1/128", "10.0.0.1", "10.0.0.2"),
        ("::ffff:0:0/96", "10.0.0.1", "2001:db8::1"),
        ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("::/0", "2001:db8::1", "127.0.0.1"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
        ("2001:db8::7", "2001:db8::7", "2001:db8::8"),
    ] {
        assert!(contains(network, inside), "{network} {inside}");
        assert!(!contains(network, outside), "{network} {outside}");
    }
}

#[test]
fn what_is_no_network_is_refused_with_what_is_wrong() {
    for text in [
        "",
        "10",
        "10.0.0.0/",
        "10.0.0.0/x",
        "10.0.0.0/-1",
        "a/8",
        "10.0.0.0/8/8",
    ] {
        let error = text.parse::<Network>().expect_err(text);
        assert_eq!(error, NetworkError::Syntax(text.to_owned()));
    }
    for (text, says) in [
        ("10.0.0.0/33", "33 bits, and its addresses have 32"),
        ("::/129", "129 bits, and its addresses have 128"),
        ("10.0.0.1/8", "10.0.0.1/8 has bits set behind the first 8"),
        (
            "::ffff:10.0.0.1/104",
            "10.0.0.1/8 has bits set behind the first 8",
        ),
    ] {
        let error = text.parse::<Network>().expect_err(text).to_string();
        assert!(error.contains(says), "{error}");
    }
}
