//! Cuts a file into its documents at `---` and `...`, so that a broken one leaves the others alive.
//! YAML forbids both markers at the start of a line inside any document (YAML 1.2.2, 9.1.2), so no
//! parsing is needed to find them; JSON has no such lines.

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Document<'t> {
    /// Its text, with the `---` before it.
    pub text: &'t str,
    /// Lines of the file before its text.
    pub lines_before: u32,
}

/// The documents of a file that have more in them than space and comments.
pub(crate) fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let mut cutter = Cutter::default();
    let mut end = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let start = end;
        end += line.len();
        // Directives (`%YAML 1.2`) belong to the document whose `---` they precede.
        if is_marker(line, "---") && !cutter.has_only_directives {
            cutter.cut(text, start, number, &mut found);
        }
        let is_end = is_marker(line, "...");
        cutter.look(line, is_end);
        if is_end {
            cutter.cut(text, end, number + 1, &mut found);
        }
    }
    cutter.cut(text, end, 0, &mut found);
    found
}

/// The document that is being gone through.
#[derive(Default)]
struct Cutter {
    start: usize,
    lines_before: usize,
    has_content: bool,
    has_only_directives: bool,
}

impl Cutter {
    fn look(&mut self, line: &str, is_end: bool) {
        let rest = if is_marker(line, "---") {
            line.get(3..).unwrap_or_default()
        } else {
            line
        };
        let rest = rest.trim();
        if !rest.is_empty() && !rest.starts_with('#') && !is_end {
            let is_directive = line.starts_with('%') && !self.has_content;
            self.has_only_directives = is_directive;
            self.has_content |= !is_directive;
        } else if is_marker(line, "---") {
            self.has_only_directives = false;
        }
    }

    fn cut<'t>(
        &mut self,
        text: &'t str,
        end: usize,
        next_lines_before: usize,
        found: &mut Vec<Document<'t>>,
    ) {
        if (self.has_content || self.has_only_directives)
            && let Some(document) = text.get(self.start..end)
        {
            found.push(Document {
                text: document,
                lines_before: u32::try_from(self.lines_before).unwrap_or(u32::MAX),
            });
        }
        *self = Self {
            start: end,
            lines_before: next_lines_before,
            ..Self::default()
        };
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<(&str, u32)> {
        documents(text)
            .into_iter()
            .map(|d| (d.text, d.lines_before))
            .collect()
    }

    #[test]
    fn documents_keep_their_line() {
        assert_eq!(
            cut("a: 1\n---\nb: 2\n--- {c: 3}\n"),
            [("a: 1\n", 0), ("---\nb: 2\n", 1), ("--- {c: 3}\n", 3)]
        );
        assert_eq!(
            cut("---\r\na: 1\r\n---\r\nb: 2"),
            [("---\r\na: 1\r\n", 0), ("---\r\nb: 2", 2)]
        );
        assert_eq!(cut("\u{feff}{\"a\": 1}"), [("{\"a\": 1}", 0)]);
    }

    #[test]
    fn empty_documents_are_no_documents() {
        assert_eq!(cut(""), []);
        assert_eq!(cut("---\n---\n# nothing\n\n--- # either\n...\n"), []);
        assert_eq!(cut("---\n---\na: 1\n"), [("---\na: 1\n", 1)]);
    }

    #[test]
    fn an_end_marker_ends_and_directives_begin_a_document() {
        assert_eq!(
            cut("a: 1\n...\n%YAML 1.2\n---\nb: 2\n"),
            [("a: 1\n...\n", 0), ("%YAML 1.2\n---\nb: 2\n", 2)]
        );
        assert_eq!(cut("%YAML 1.2\n"), [("%YAML 1.2\n", 0)]);
    }

    #[test]
    fn markers_inside_lines_do_not_cut() {
        let text = "a: |\n  ---\n  x\nb: ----\n---x: 1\n";
        assert_eq!(cut(text), [(text, 0)]);
    }
}
