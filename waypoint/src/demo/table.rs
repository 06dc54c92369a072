//! What a tour has found, as a table on a terminal: what was sent, what should come, what came.

use std::fmt::Write;

/// One line of the tour.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was sent, and by whom.
    pub sent: String,
    /// What should come.
    pub expected: String,
    /// What came.
    pub got: String,
    /// Whether that is what should come.
    pub ok: bool,
}

/// Prints lines under aligned columns as they come.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    sent: usize,
    expected: usize,
    got: usize,
}

impl Table {
    /// Columns of these widths, in characters; a longer text goes on in the next row.
    pub fn new(sent: usize, expected: usize, got: usize) -> Self {
        Self {
            sent,
            expected,
            got,
        }
    }

    /// The heading, two rows.
    pub fn heading(&self) -> String {
        let Self {
            sent,
            expected,
            got,
        } = *self;
        let mut text = self.rows("sent", "expected", "got", "");
        let rule = |width| "-".repeat(width);
        let _ = writeln!(
            text,
            "{}  {}  {}  ----",
            rule(sent),
            rule(expected),
            rule(got)
        );
        text
    }

    /// A line, one row or more. `verdict` is its last column, coloured or not.
    pub fn line(&self, line: &Line, verdict: &str) -> String {
        self.rows(&line.sent, &line.expected, &line.got, verdict)
    }

    fn rows(&self, sent: &str, expected: &str, got: &str, verdict: &str) -> String {
        let columns = [
            wrap(sent, self.sent),
            wrap(expected, self.expected),
            wrap(got, self.got),
        ];
        let height = columns.iter().map(Vec::len).max().unwrap_or(0);
        let mut text = String::new();
        for row in 0..height {
            let mut cells = String::new();
            for (column, width) in columns.iter().zip([self.sent, self.expected, self.got]) {
                let cell = column.get(row).map_or("", String::as_str);
                let _ = write!(cells, "{cell:width$}  ");
            }
            if row == 0 {
                cells.push_str(verdict);
            }
            let _ = writeln!(text, "{}", cells.trim_end());
        }
        text
    }
}

/// Breaks a text at spaces into pieces of at most `width` characters; a longer word stands alone.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in text.split(' ') {
        let Some(row) = rows.last_mut() else { break };
        let needed = row.chars().count() + usize::from(!row.is_empty()) + word.chars().count();
        if needed > width && !row.is_empty() {
            rows.push(word.to_owned());
        } else {
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stay_aligned_when_a_text_is_long() {
        let table = Table::new(8, 8, 10);
        let line = Line {
            sent: "GET /items".into(),
            expected: "200".into(),
            got: "200 of web-v1 at last".into(),
            ok: true,
        };
        assert_eq!(
            table.heading() + &table.line(&line, "ok"),
            "\
sent      expected  got
--------  --------  ----------  ----
GET       200       200 of      ok
/items              web-v1 at
                    last
"
        );
    }
}
