//! A corpus that means something else than its author thinks is refused.

use protosocket_testkit::corpus::{Corpus, Level};

fn refused(text: &str) -> String {
    let error = Corpus::parse("some/folder/rules.toml", text).unwrap_err();
    error.to_string()
}

/// A case that is in order, with this key in addition.
fn with(line: &str) -> String {
    format!("[[case]]\nid = \"a\"\nrules = [\"F1\"]\nmessages = []\nend = \"io\"\n{line}\n")
}

#[test]
fn a_case_in_order() {
    let corpus = Corpus::parse("x.toml", &with("input = \"a\"")).unwrap();
    let case = corpus.cases().next().unwrap();
    assert_eq!(case.id(), "x/a");
    assert_eq!(case.rules().collect::<Vec<_>>(), ["F1"]);
    assert!(Level::ALL.into_iter().all(|level| case.is_for(level)));
}

#[test]
fn unknown_keys_name_file_and_case() {
    let error = refused(&with("input = \"a\"\nmesages = 3"));
    assert!(
        error.starts_with("some/folder/rules.toml: case \"a\": unknown key `mesages`"),
        "{error}"
    );
    let error = refused(&format!("limts = {{}}\n{}", with("input = \"a\"")));
    assert!(error.contains("unknown key `limts`"), "{error}");
    for inner in [
        "input = { repeat = \"a\", times = 2, tims = 3 }",
        "script = [{ send = \"a\", evry = \"1 ms\" }]",
        "input = \"a\"\nlimits = { linger = \"1 s\" }",
        "input = \"a\"\nwithout = { sever = \"a reason\" }",
    ] {
        let error = refused(&with(inner));
        assert!(
            error.contains("case \"a\"") && error.contains("unknown key"),
            "{error}"
        );
    }
}

#[test]
fn two_cases_of_one_id() {
    let error = refused(&with("input = \"a\"").repeat(2));
    assert!(
        error.contains("case \"a\": there are two cases of this id"),
        "{error}"
    );
}

#[test]
fn what_is_missing_or_makes_no_sense() {
    for (line, expected) in [
        ("", "`input` or `script`"),
        ("input = \"a\"\nscript = []", "`input` or `script`"),
        ("script = [\"reset\"]", "say `without.decoder`"),
        ("input = \"a\"\ncut = \"reset\"", "say `without.decoder`"),
        (
            "script = [\"reset\"]\ncut = \"reset\"\nwithout.decoder = \"no\"",
            "`cut` goes with `input`",
        ),
        ("script = [\"rst\"]", "unknown step \"rst\""),
        (
            "script = [{ send = \"a\", pause = \"1 s\" }]",
            "a step is one of",
        ),
        ("script = [{ dribble = \"a\" }]", "`every` is missing"),
        ("script = [{ pause = \"1 minute\" }]", "expected a time"),
        ("input = { hex = \"0\" }", "pairs of hex digits"),
        ("input = { garbage = 3 }", "a piece is a string"),
        (
            "input = { repeat = \"aaaaaaaa\", times = 1000000000 }",
            "at most",
        ),
        ("input = 3", "expected a table"),
        (
            "input = \"a\"\nlimits = { idle_timeout = 3 }",
            "expected a string",
        ),
        (
            "input = \"a\"\nwithout = { server = \" \" }",
            "left out for a reason",
        ),
        (
            "input = \"a\"\nwithout = { decoder = \"a\", server = \"b\", client = \"c\" }",
            "run at no level",
        ),
    ] {
        let error = refused(&with(line));
        assert!(
            error.contains("case \"a\"") && error.contains(expected),
            "{line}: {error}"
        );
    }
    let error = refused(&with("input = \"a\"").replace("\"io\"", "\"timeout\""));
    assert!(error.contains("unknown end \"timeout\""), "{error}");
    let error = refused(&with("input = \"a\"").replace("[]", "\"all\""));
    assert!(error.contains("`messages`"), "{error}");
    let error = refused("[[case]]\nid = [");
    assert!(error.starts_with("some/folder/rules.toml:"), "{error}");
    let error = Corpus::load("not/there.toml").unwrap_err().to_string();
    assert!(error.starts_with("not/there.toml: "), "{error}");
}

#[test]
fn every_way_to_write_bytes() {
    for input in [
        "\"abc\"",
        "{ hex = \"61 6263\" }",
        "[\"a\", { hex = \"62\" }, \"c\"]",
        "[{ repeat = [\"a\", \"b\"], times = 1 }, \"c\"]",
    ] {
        let text = with(&format!("input = {input}")).replace("[]", "[\"abc\"]");
        let text = text.replace("\"io\"", "\"end_of_input\"");
        let corpus = Corpus::parse("x.toml", &text).unwrap();
        let lines = corpus.run_decoder(
            |_| protosocket::LinesCodec::new(),
            |line| line.clone().into(),
        );
        lines.expect_all();
    }
    for input in ["{ garbage = 10, seed = 1 }", "{ counting = 300 }"] {
        Corpus::parse("x.toml", &with(&format!("input = {input}"))).unwrap();
    }
}
