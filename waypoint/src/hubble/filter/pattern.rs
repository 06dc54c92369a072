//! Patterns of names: `*.example.com`. A star stands for any letters, digits, dots and dashes, none
//! included.

use super::Invalid;

/// A pattern, in lower case and without the dot that may end it; `None`: every name.
#[derive(Debug)]
pub struct Pattern(Option<String>);

impl Pattern {
    /// Reads a pattern.
    pub fn read(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.*".contains(c);
        if text.is_empty() || text.ends_with('.') || !text.chars().all(legal) {
            return Err(Invalid::new(format!("{text:?} is not a pattern of names")));
        }
        Ok(Self(Some(text)))
    }

    /// The pattern of every name.
    pub fn any() -> Self {
        Self(None)
    }

    /// Whether a name is of the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let Some(pattern) = &self.0 else {
            return true;
        };
        let mut pieces = pattern.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let mut pieces: Vec<&str> = pieces.collect();
        let Some(last) = pieces.pop() else {
            // There is no star.
            return rest.is_empty();
        };
        let Some(middle) = rest.strip_suffix(last) else {
            return false;
        };
        rest = middle;
        // The first place of each piece leaves the most room to the next.
        for piece in pieces {
            match rest.split_once(piece) {
                Some((skipped, after)) if is_starred(skipped) => rest = after,
                _ => return false,
            }
        }
        is_starred(rest)
    }
}

/// What a star stands for.
fn is_starred(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c);
    text.bytes().all(legal)
}
