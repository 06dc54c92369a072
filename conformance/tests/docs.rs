//! Holds the pages under docs/ to the code: every name that a user meets is explained, every number is
//! the one in force, and every example says what the program says. Judges no prose.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_config_schema::diagnostics::Code;
use cairn_conformance::workspace;
use cairn_filters::outcome::Outcome;
use cairn_waypoint::listener::accept;
use cairn_waypoint::listener::admit::Refusal;

/// A file of the repository.
fn text(path: &str) -> String {
    fs::read_to_string(workspace::root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every page of text for users.
fn pages() -> Vec<PathBuf> {
    let root = workspace::root();
    let docs = fs::read_dir(root.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = docs
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .collect();
    pages.extend(["README.md", "deploy/README.md", "ARCHITECTURE.md"].map(|page| root.join(page)));
    pages.sort();
    pages
}

/// Asserts that a page has every name in backticks, perhaps among other words.
fn assert_has(page: &str, names: &[String]) {
    assert!(!names.is_empty(), "{page}: nothing to look for");
    let content = text(page);
    let has = |name: &str| content.contains(&format!("`{name}`"));
    let missing: Vec<_> = names.iter().filter(|name| !has(name)).collect();
    assert!(missing.is_empty(), "{page} does not mention {missing:?}");
}

/// What stands between two marks, every time.
fn between<'t>(text: &'t str, before: &str, after: &str) -> Vec<&'t str> {
    let pieces = text.split(before).skip(1);
    pieces
        .filter_map(|piece| Some(piece.split_once(after)?.0))
        .collect()
}

/// The lines of a struct or enum of the code.
fn body<'t>(code: &'t str, head: &str) -> Vec<&'t str> {
    let found = between(code, head, "\n}");
    let body = found.first().unwrap_or_else(|| panic!("{head} is gone"));
    let lines = body.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with(['/', '#']))
        .collect()
}

/// `UnknownField` as `unknown-field`; `remote_ip_blocks` as `remoteIpBlocks`.
fn kebab(variant: &str) -> String {
    let mut name = String::new();
    for c in variant.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

fn camel(field: &str) -> String {
    let mut words = field.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        name.push_str(&word[..1].to_uppercase());
        name.push_str(&word[1..]);
    }
    name
}

#[test]
fn every_metric_is_explained() {
    let files = [
        "istio",
        "own",
        "destinations",
        "policy",
        "node",
        "controller",
        "kubernetes",
    ];
    let code = files.map(|file| text(&format!("waypoint/src/telemetry/names/{file}.rs")));
    let code = code.concat();
    let names = ["\"istio_", "\"cairn_", "\"hubble_"]
        .into_iter()
        .flat_map(|prefix| {
            let names = between(&code, prefix, "\"").into_iter();
            names
                .map(move |rest| format!("{}{rest}", &prefix[1..]))
                .collect::<Vec<_>>()
        });
    assert_has("docs/operations.md", &names.collect::<Vec<_>>());
    let answer = between(&code, "HTTP_LABELS: [&str; 25] = labels![", "];");
    let labels = between(&code, "macro_rules! labels {", "\n}");
    let labels = answer.into_iter().chain(labels);
    let labels = labels.flat_map(|part| part.split('"').skip(1).step_by(2));
    let labels: Vec<String> = labels.map(str::to_owned).collect();
    assert_eq!(labels.len(), 25, "{labels:?}");
    assert_has("docs/operations.md", &labels);
}

#[test]
fn every_code_of_a_diagnostic_has_a_section() {
    let code = text("config-schema/src/diagnostics.rs");
    let lints: Vec<String> = Code::LINTS
        .iter()
        .map(|c| kebab(&format!("{c:?}")))
        .collect();
    for variant in body(&code, "pub enum Code {") {
        let name = kebab(variant.trim_end_matches(','));
        let page = match lints.contains(&name) {
            true => "docs/lints.md",
            false => "docs/diagnostics.md",
        };
        let heading = format!("\n## {name}\n");
        assert!(
            text(page).contains(&heading),
            "{page} has no section {name}"
        );
    }
}

/// A lint is shown on the page by an example that is run, and proven by a case with the mistake and
/// one with it mended.
#[test]
fn every_lint_has_an_example_and_a_golden_case() {
    let page = text("docs/lints.md");
    for code in Code::LINTS {
        let name = kebab(&format!("{code:?}"));
        let section = between(&page, &format!("\n## {name}\n"), "\n## ");
        let rest = || {
            page.split(&format!("\n## {name}\n"))
                .nth(1)
                .unwrap()
                .to_owned()
        };
        let section = section.first().map_or_else(rest, |s| s.to_string());
        assert!(
            section.contains(&format!("[{name}]: ")),
            "no example of {name}"
        );
        let folder = workspace::root()
            .join("conformance/golden/lints")
            .join(&name);
        for file in ["case.yaml", "mended.yaml"] {
            assert!(
                folder.join(file).exists(),
                "no {file} in {}",
                folder.display()
            );
        }
        let requests = fs::read_to_string(folder.join("requests.yaml")).unwrap();
        assert!(
            requests.contains(&format!(" {name}\"")),
            "{name} is not expected"
        );
    }
}

#[test]
fn every_flag_and_variable_is_explained() {
    let commands = [
        "demo",
        "run",
        "check",
        "explain",
        "diff",
        "translate",
        "request",
        "pki",
        "node",
        "controller",
        "attach",
        "detach",
        "status",
        "doctor",
    ];
    let of_node = ["node status", "node connections", "node detach"];
    for command in commands.into_iter().chain(of_node) {
        let help = Command::new(workspace::cairn())
            .args(command.split(' ').chain(["--help"]))
            .output()
            .unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let flags = help
            .split_whitespace()
            .filter(|word| word.starts_with("--") && word.len() > 2);
        let mut names: Vec<String> = flags
            .map(|f| {
                // `--flag=value` is one in an example.
                let name = f.split('=').next().unwrap_or_default();
                name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
                    .to_owned()
            })
            .filter(|f| !["--help", "--version"].contains(&f.as_str()))
            .collect();
        names.extend(
            between(&help, "[env: ", "=")
                .iter()
                .map(|name| name.to_string()),
        );
        assert_has("docs/operations.md", &names);
    }
}

#[test]
fn every_outcome_and_refusal_has_its_row() {
    let page = text("docs/operations.md");
    let has_row = |cells: &[String]| {
        page.lines()
            .any(|line| line.starts_with('|') && cells.iter().all(|c| line.contains(c)))
    };
    for outcome in Outcome::ALL {
        let row = outcome.row();
        let flag = if row.flag.is_empty() {
            "`-`".to_owned()
        } else {
            format!("`{}`", row.flag)
        };
        let status = format!("| {} |", row.status.as_u16());
        let grpc = format!("| {} |", row.grpc_status);
        let cells = [
            status,
            grpc,
            flag,
            format!("`{}`", row.details),
            // Cilium's ends with a line break, which no table has.
            row.body.trim_end().to_owned(),
        ];
        assert!(has_row(&cells), "no row for {outcome:?}: {cells:?}");
    }
    for refusal in Refusal::ALL {
        let cells = [
            format!("`{}`", refusal.as_str()),
            refusal.status().as_u16().to_string(),
        ];
        assert!(has_row(&cells), "no row for {refusal:?}");
    }
    assert_has("docs/operations.md", &accept::FAILURES.map(str::to_owned));
}

#[test]
fn every_key_of_the_access_log_is_explained() {
    let code = text("waypoint/src/telemetry/access_log/line.rs");
    let keys = body(&code, "\nmembers! {");
    let keys: Vec<String> = keys
        .iter()
        .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
        .collect();
    assert_has("docs/operations.md", &keys);
}

#[test]
fn every_limit_has_its_value() {
    let page = text("docs/operations.md");
    for file in [
        "waypoint/src/limits.rs",
        "waypoint/src/limits/observation.rs",
        "config-schema/src/limits.rs",
        "kubernetes/src/limits.rs",
    ] {
        for constant in between(&text(file), "pub const ", ";") {
            let (name, value) = constant.split_once(": ").unwrap();
            let value = value
                .split_once(" = ")
                .unwrap()
                .1
                .trim_end_matches(" as u32");
            // Defined by another one.
            if value
                .chars()
                .next()
                .is_some_and(|c| c.is_ascii_uppercase() && !value.contains('('))
            {
                assert!(page.contains(&format!("`{name}`")), "no limit {name}");
                continue;
            }
            let expected = shown(value);
            let found = page
                .lines()
                .find(|line| line.contains(&format!("`{name}`")));
            let row = found.unwrap_or_else(|| panic!("docs/operations.md has no limit {name}"));
            let says = row
                .split('|')
                .any(|cell| cell.trim().split(" (").next() == Some(&expected));
            assert!(says, "{name} is {expected}, docs/operations.md says: {row}");
        }
    }
}

/// `64 * 1024` as `65,536`; `Duration::from_secs(10)` as `10 s`.
fn shown(value: &str) -> String {
    let unit = match value {
        v if v.starts_with("Duration::from_secs") => " s",
        v if v.starts_with("Duration::from_millis") => " ms",
        _ => "",
    };
    let number = value
        .rsplit('(')
        .next()
        .unwrap()
        .trim_end_matches(')')
        .replace('_', "");
    let product: u64 = number
        .split('*')
        .map(|n| n.trim().parse::<u64>().unwrap())
        .product();
    let digits = product.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + unit
}

#[test]
fn every_field_of_an_authorization_policy_is_in_the_table() {
    let code = text("config-schema/src/resources/istio.rs")
        + &text("config-schema/src/resources/authentication.rs");
    let mut fields = Vec::new();
    for name in [
        "RequestAuthenticationSpec",
        "JwtRule",
        "JwtHeader",
        "ClaimToHeader",
        "AuthorizationPolicySpec",
        "Source",
        "Operation",
        "When",
        "MeshConfigSpec",
    ] {
        let lines = body(&code, &format!("pub struct {name} {{"));
        let lines = lines
            .iter()
            .filter_map(|line| line.strip_prefix("pub ")?.split_once(':'));
        fields.extend(lines.map(|(field, _)| camel(field.trim_end_matches("_ms"))));
    }
    assert_has("docs/configuration.md", &fields);
}

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

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let content = fs::read_to_string(&page).unwrap();
        for link in between(&content, "](", ")") {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !anchor.is_empty() {
                let target = fs::read_to_string(target).unwrap();
                let mut headings = target
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(slug);
                assert!(
                    headings.any(|h| h == anchor),
                    "{}: no heading for {link}",
                    page.display()
                );
            }
        }
    }
}

/// The anchor of a heading.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
