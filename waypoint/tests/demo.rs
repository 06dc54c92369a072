//! `cairn demo` is what a newcomer sees first: every line of its tour must come out as it says, on
//! real sockets, with real certificates.

use std::process::Command;

#[test]
fn every_line_of_the_tour_is_as_expected() {
    let output = Command::new(env!("CARGO_BIN_EXE_cairn"))
        .args(["demo", "--once"])
        .output()
        .expect("cairn runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("lines are as expected"), "{text}");
}
