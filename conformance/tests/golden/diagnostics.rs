//! Compares the findings of a stage with its patterns. Knows nothing of requests.

use cairn_config_schema::diagnostics::{Diagnostic, Severity};

use cairn_conformance::golden::format::{Diagnostics, Stage};

/// `case.yaml:10:23: error unknown-field Kind/ns/name spec.path: message; hint`.
pub fn shown(diagnostic: &Diagnostic) -> String {
    let place = diagnostic.location.as_ref().map(|l| format!("{l}: "));
    let object = diagnostic.object.as_ref().map(|o| format!(" {o}"));
    let path = (!diagnostic.path.is_empty()).then(|| format!(" {}", diagnostic.path));
    let hint = diagnostic.hint.as_ref().map(|h| format!("; {h}"));
    let effect = diagnostic.effect.as_ref().map(|e| format!("; {e}"));
    format!(
        "{}{} {}{}{}: {}{}{}",
        place.unwrap_or_default(),
        word(diagnostic.severity),
        word(diagnostic.code),
        object.unwrap_or_default(),
        path.unwrap_or_default(),
        diagnostic.message,
        effect.unwrap_or_default(),
        hint.unwrap_or_default(),
    )
}

/// What is missing and what is too much.
pub fn compare(stage: &Stage, found: &[Diagnostic]) -> Vec<String> {
    let mut wrong = Vec::new();
    let all: Vec<String> = found.iter().map(shown).collect();
    let mut missing = |patterns: &[String]| {
        for pattern in patterns {
            if !all.iter().any(|line| matches(pattern, line)) {
                wrong.push(format!("no diagnostic matches {pattern:?}"));
            }
        }
    };
    missing(&stage.diagnostics_include);
    match &stage.diagnostics {
        Diagnostics::Word(word) => assert_eq!(word, "any", "diagnostics: any, or a list"),
        Diagnostics::Patterns(patterns) => {
            missing(patterns);
            for (diagnostic, line) in found.iter().zip(&all) {
                let expected = patterns.iter().any(|p| matches(p, line));
                if diagnostic.severity > Severity::Info && !expected {
                    wrong.push(format!("unexpected diagnostic {line}"));
                }
            }
        }
    }
    if !wrong.is_empty() && !all.is_empty() {
        wrong.push(format!("all diagnostics:\n    {}", all.join("\n    ")));
    }
    wrong
}

fn matches(pattern: &str, line: &str) -> bool {
    pattern.split_whitespace().all(|word| line.contains(word))
}

/// A severity or code as users see it.
fn word(value: impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).unwrap();
    json.as_str().unwrap().to_owned()
}
