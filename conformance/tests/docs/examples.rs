//! Examples are run, and have to say what the program says.

use std::fs;
use std::path::Path;
use std::process::Command;

use cairn_conformance::workspace;

use crate::pages;

/// A fenced block: its language and its text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inside = lines.by_ref().take_while(|line| !line.starts_with("```"));
            let content: String = inside.map(|line| format!("{line}\n")).collect();
            blocks.push((language.to_owned(), content));
        }
    }
    blocks
}

/// The command of `$ cairn COMMAND ...`.
fn command_of(block: &str) -> &str {
    let command = block.strip_prefix("$ cairn ").unwrap_or_default();
    command.split(' ').next().unwrap_or_default()
}

/// Runs the command of a console block on the YAML before it. Of `check` a page may show the findings
/// without the summary below them.
#[test]
fn every_example_says_what_the_page_says() {
    let mut examples = 0;
    for page in pages() {
        let content = fs::read_to_string(&page).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (language, block) in blocks(&content) {
            match language.as_str() {
                "yaml" => {
                    // The first of a page is what the others stand beside.
                    let base = folder.path().join("shop.yaml");
                    let file = if base.exists() {
                        folder.path().join("mesh.yaml")
                    } else {
                        base
                    };
                    fs::write(file, block).unwrap();
                }
                "console" if ["check", "diff", "explain"].contains(&command_of(&block)) => {
                    examples += 1;
                    let (command, expected) = block.split_once('\n').unwrap();
                    let found = run(command, folder.path());
                    let findings = found.split("\nread  ").next().unwrap();
                    let same = findings.trim_end() == expected.trim_end() || found == expected;
                    assert!(
                        same,
                        "{}: {command}\nfound:\n{found}\nexpected:\n{expected}",
                        page.display()
                    );
                }
                _ => {}
            }
        }
    }
    assert!(examples > 20, "only {examples} examples were found");
}

fn run(command: &str, folder: &Path) -> String {
    let arguments = command.trim_start_matches("$ cairn ").split(' ');
    let mut cairn = Command::new(workspace::cairn());
    let output = cairn.args(arguments).current_dir(folder).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
