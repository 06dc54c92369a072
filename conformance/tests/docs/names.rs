//! Every name that a user meets: of metrics, findings, flags, keys of the access log, fields.

use std::fs;
use std::process::Command;

use cairn_config_schema::diagnostics::Code;
use cairn_conformance::workspace;

use crate::{assert_has, between, body, text};

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
