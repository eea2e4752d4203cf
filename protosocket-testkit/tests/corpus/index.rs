//! The index of rules says what is, and leaves nothing out.

use protosocket_testkit::corpus::{Corpus, Level, Proof, RuleIndex};

use crate::FOLDER;

const FILES: [&str; 5] = [
    "lines",
    "length_u32",
    "length_varint",
    "framework",
    "transport",
];

/// Every rule that there is for transport and framework. Of the defects, those of remote calls are
/// not the core's; of the others, D30 was a lack of tests and D31 code that may not be written here.
const RULES: [&str; 51] = [
    "F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "F11", "F12", "F13", "F14", "F15",
    "F16", "F17", "F18", "F19", "F20", "F21", "F22", "F23", "F24", "F25", "F26", "D1", "D2", "D2b",
    "D2c", "D3", "D4", "D5", "D6", "D7", "D8", "D9", "D9b", "D10", "D11", "D11b", "D12", "D13",
    "D14", "D15", "D16", "D20", "D21", "D22", "D23", "D24",
];
const MORE_RULES: [&str; 2] = ["D25", "D26"];

/// Where the paths of the index begin.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn index() -> RuleIndex {
    let corpus = Corpus::load_all(FOLDER, &FILES).unwrap();
    RuleIndex::load(format!("{FOLDER}/rules.toml"), corpus.cases()).unwrap()
}

#[test]
#[expect(clippy::print_stdout, reason = "the table is for people")]
fn every_rule_is_proven_where_it_applies() {
    let index = index();
    println!("{index}");
    let rules = [&RULES[..], &MORE_RULES].concat();
    assert_eq!(index.gaps(ROOT, &rules), [""; 0]);
    let not_yet: Vec<_> = index.not_yet().collect();
    assert_eq!(
        not_yet,
        [
            ("F21", "datagrams"),
            ("F22", "datagrams"),
            ("F23", "datagrams"),
        ]
    );
}

/// Whether a test knows no sockets: it drives a connection, or a part of one, in memory.
fn is_in_memory(proof: &Proof) -> bool {
    let Proof::Test(test) = proof else {
        return false;
    };
    const ON_SOCKETS: &str = "protosocket/tests/connection/transports.rs";
    const IN_MEMORY: [&str; 4] = [
        "protosocket/src/",
        "protosocket/tests/",
        "protosocket-testkit/tests/faults.rs",
        "protosocket-testkit/tests/simulation/",
    ];
    !test.starts_with(ON_SOCKETS) && IN_MEMORY.iter().any(|path| test.starts_with(path))
}

#[test]
fn what_a_server_or_a_client_is_said_to_do_is_shown_on_sockets() {
    let index = index();
    for id in index.ids() {
        for level in [Level::Server, Level::Client] {
            let proofs = index.proofs(id, level);
            assert!(
                proofs.is_empty() || !proofs.iter().all(is_in_memory),
                "{id}: the level {level} is shown by the connection alone, and does not say so: \
                 {proofs:?}"
            );
        }
    }
}

#[test]
fn cases_are_found_by_their_rules() {
    let index = index();
    let proofs = index.proofs("F8", Level::Server);
    assert!(proofs.contains(&Proof::Case("transport/half_close_for_64_mib".to_owned())));
    assert!(index.proofs("F8", Level::Decoder).is_empty());
}

#[test]
fn what_an_index_says_and_is_not_so_is_a_gap() {
    let text = r#"
        [files]
        here = "protosocket-testkit/tests/corpus/index.rs"
        nowhere = "no/such/file.rs"
        [[rule]]
        id = "F1"
        what = "nothing shows it to a client"
        server = "there is a reason"
        decoder = ["here::cases_are_found_by_their_rules"]
        [[rule]]
        id = "F2"
        what = "its tests are not there"
        tests = ["here::no_such_test", "here::index", "nowhere::test"]
        [[rule]]
        id = "F3"
        what = "it is left out and proven at once"
        tests = ["here::cases_are_found_by_their_rules"]
        [[rule]]
        id = "F4"
        what = "it will be proven"
        not_yet = "something is missing"
    "#;
    let case = r#"
        [[case]]
        id = "one"
        rules = ["F1", "RFC 9110 6.4", "CVE-2023-44487"]
        input = ""
        messages = 0
        end = "io"
        without.client = "a reason"
    "#;
    let corpus = Corpus::parse("x.toml", case).unwrap();
    let index = RuleIndex::parse("rules.toml", text, corpus.cases()).unwrap();
    let gaps = index.gaps(ROOT, &["F1", "F9"]);
    let has = |gap: &str| gaps.iter().any(|found| found.starts_with(gap));
    assert!(has("F9: not in rules.toml"), "{gaps:#?}");
    assert!(
        has("F1: nothing proves it at the level client"),
        "{gaps:#?}"
    );
    assert!(
        has("F1: left out at the level server, and proven there"),
        "{gaps:#?}"
    );
    for missing in ["index.rs::no_such_test", "index.rs::index"] {
        let gap = format!("F2: protosocket-testkit/tests/corpus/{missing}: there is no such test");
        assert!(has(&gap), "{gaps:#?}");
    }
    assert!(has("F2: no/such/file.rs::test: "), "{gaps:#?}");
    assert!(!has("F3") && !has("F4"), "{gaps:#?}");
    assert_eq!(
        index.not_yet().collect::<Vec<_>>(),
        [("F4", "something is missing")]
    );

    let unknown = Corpus::parse("x.toml", &case.replace("\"F1\"", "\"F99\"")).unwrap();
    let error = RuleIndex::parse("rules.toml", text, unknown.cases()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"x/one\" names the rule \"F99\""),
        "{error}"
    );
    let twice = text.replace("id = \"F2\"", "id = \"F1\"");
    let error = RuleIndex::parse("rules.toml", &twice, corpus.cases()).unwrap_err();
    assert!(
        error.to_string().contains("rule \"F1\": it is there twice"),
        "{error}"
    );
    let misspelt = text.replace("what =", "waht =");
    let error = RuleIndex::parse("rules.toml", &misspelt, corpus.cases()).unwrap_err();
    assert!(
        error.to_string().contains("rule \"F1\": `what` is missing"),
        "{error}"
    );
}
