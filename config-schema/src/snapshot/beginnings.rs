//! The text that whatever an expression matches begins with, so that rules can be found by it. Matches
//! nothing itself.

use regex_syntax::hir::literal::{ExtractKind, Extractor};

use super::Pattern;

/// Beginnings of one expression; one with more is as one that may begin with anything.
const BEGINNINGS_MAX: usize = 16;

impl Pattern {
    /// Texts of which one begins everything that matches. `None`: it may begin with anything.
    pub fn beginnings(&self) -> Option<Vec<Vec<u8>>> {
        let expression = regex_syntax::parse(self.source()).ok()?;
        let found = Extractor::new()
            .kind(ExtractKind::Prefix)
            .limit_total(BEGINNINGS_MAX)
            .extract(&expression);
        let beginnings = found.literals()?.iter();
        let beginnings: Vec<Vec<u8>> = beginnings.map(|b| b.as_bytes().to_vec()).collect();
        let says_something = !beginnings.iter().any(Vec::is_empty);
        says_something.then_some(beginnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_those_of_everything_that_matches() {
        for (source, expected) in [
            ("/api/v1/orders/.*", Some(vec!["/api/v1/orders/"])),
            ("^/users$", Some(vec!["/users"])),
            (
                "/users?(/.*)?",
                Some(vec!["/users/", "/users", "/user/", "/user"]),
            ),
            ("/a|/b", Some(vec!["/a", "/b"])),
            ("/a[bc]d*", Some(vec!["/abd", "/ab", "/acd", "/ac"])),
            (".*", None),
            ("(/a)?.*", None),
            ("(/a)*", None),
            ("[a-z0-9]+", None),
        ] {
            let pattern = Pattern::compile(source).unwrap();
            let found = pattern.beginnings();
            let expected: Option<Vec<Vec<u8>>> =
                expected.map(|all| all.into_iter().map(|b| b.as_bytes().to_vec()).collect());
            assert_eq!(found, expected, "{source}");
        }
        let both_cases = Pattern::compile("(?i)/ab").unwrap().beginnings().unwrap();
        assert_eq!(both_cases.len(), 4);
    }
}
