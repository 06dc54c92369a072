//! Regular expressions of Cilium's rules: they match the whole text or not at all
//! (specs/policies.md 2.1.5).

use cairn_config_schema::snapshot::Pattern;
use regex::Regex;

/// The bytes as an expression, a line break, and the text that is matched.
pub fn cilium_regex(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (expression, value) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(pattern) = Pattern::compile(expression) else {
        return;
    };
    assert_eq!(pattern.source(), expression);
    // The same, asked differently: some match begins at the begin and ends at the end. `find` may stop
    // at a shorter one, so only its yes is an answer.
    let alone = Regex::new(expression);
    assert!(alone.is_ok(), "{expression:?} is none by itself");
    let Ok(alone) = alone else { return };
    let matches = pattern.matches(value);
    let found = alone.find(value);
    let whole = found.is_some_and(|m| m.start() == 0 && m.end() == value.len());
    assert!(matches || !whole, "{expression:?} misses {value:?}");
    assert!(
        !matches || found.is_some(),
        "{expression:?} takes {value:?}"
    );
    // One byte more is another text.
    if matches && !expression.contains(['.', '[', '\\', '*', '+', '{', '?', '$', '|', '(']) {
        assert!(!pattern.matches(&format!("{value}x")), "{expression:?}");
    }
}
