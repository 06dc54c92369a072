//! How much a lint may compare: with many policies on many services it stops, and says so.

use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::limits::LINT_COMPARISONS_MAX;

/// Comparisons left.
pub(super) struct Budget {
    left: usize,
    lint: &'static str,
}

impl Budget {
    /// The whole of it, for the lint of this name.
    pub fn new(lint: &'static str) -> Self {
        Self {
            left: LINT_COMPARISONS_MAX,
            lint,
        }
    }

    /// Takes some. `false`: there is none left, and the lint stops.
    pub fn take(&mut self, comparisons: usize) -> bool {
        match self.left.checked_sub(comparisons) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.left = 0;
                false
            }
        }
    }

    /// Says that it stopped.
    pub fn exhausted(&self) -> Diagnostic {
        let message = format!(
            "`{}` stopped after {LINT_COMPARISONS_MAX} comparisons",
            self.lint
        );
        Diagnostic::new(Severity::Info, Code::LimitExceeded, message)
            .with_effect("there may be more than what is listed")
    }
}
