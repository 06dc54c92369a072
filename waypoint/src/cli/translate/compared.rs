//! The requests of `cairn diff`'s matrix under the original and under what was written in its place: a second
//! opinion on a translation, by the engine.

use cairn_config_schema::resolve::{self, Options};
use cairn_config_schema::translate::{Translation, as_ready};
use serde::Serialize;

use super::super::configuration::Loaded;
use super::super::output::count;
use crate::diff::{self, Case, Judged, Matrix, Side};

/// Requests that are shown of those that differ.
const SHOWN_MAX: usize = 5;

/// What became of the requests.
#[derive(Debug, Default, Serialize)]
pub(super) struct Compared {
    requests: usize,
    /// Allowed by the original, and denied now.
    denied_now: usize,
    /// Denied by the original, and allowed now.
    allowed_now: usize,
    /// Allowed by both, and sent elsewhere.
    elsewhere: usize,
    /// The first of them.
    examples: Vec<Example>,
    /// What is wrong with the objects that were written.
    errors: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Example {
    request: Case,
    before: String,
    after: String,
}

/// Asks both.
///
/// # Errors
/// When a request of the matrix can not be understood.
pub(super) fn compare(
    loaded: &Loaded,
    options: &Options,
    translation: &Translation,
    requests_max: usize,
) -> anyhow::Result<Compared> {
    let mut compared = Compared::default();
    if translation.objects.is_empty() {
        return Ok(compared);
    }
    // As it was translated: nothing can be asked of a Service that leads to nobody yet.
    let loaded = as_ready(&loaded.resources);
    let (after, errors) = translation.applied_to(&loaded);
    compared.errors = errors;
    let before = Side::new(resolve::resolve(&loaded, options));
    let after = Side::new(resolve::resolve(&after, options));
    let matrix = Matrix::new(before.snapshot(), after.snapshot(), requests_max);
    for case in matrix.cases() {
        let judged = diff::compare(&before, &after, &case)?;
        compared.add(case, &judged.old, &judged.new);
    }
    Ok(compared)
}

impl Compared {
    fn add(&mut self, request: Case, old: &Judged, new: &Judged) {
        self.requests += 1;
        // The route has another name in any case.
        let leads = |judged: &Judged| (judged.backends.clone(), judged.status);
        match (old.may_pass(), new.may_pass()) {
            (true, false) => self.denied_now += 1,
            (false, true) => self.allowed_now += 1,
            (true, true) if leads(old) != leads(new) => self.elsewhere += 1,
            _ => return,
        }
        if self.examples.len() < SHOWN_MAX {
            let words = |judged: &Judged| format!("{} {}", judged.verdict, judged.by());
            self.examples.push(Example {
                request,
                before: words(old),
                after: words(new),
            });
        }
    }

    /// Whether what was written does what no part of it was said to do. `wider`: a part of it was said to allow
    /// more.
    pub(super) fn refutes(&self, wider: bool) -> bool {
        (self.allowed_now > 0 && !wider) || self.elsewhere > 0 || !self.errors.is_empty()
    }

    /// Whether any request is judged otherwise.
    pub(super) fn differs(&self) -> bool {
        self.denied_now + self.allowed_now + self.elsewhere > 0 || !self.errors.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for error in &self.errors {
            text.push_str(&format!("error: {error}\n"));
        }
        for Example {
            request,
            before,
            after,
        } in &self.examples
        {
            text.push_str(&format!(
                "not as before: {request}: {before}, now {after}\n"
            ));
        }
        if self.requests > 0 {
            text.push_str(&format!(
                "{} compared: {} allowed that were not, {} denied that were not, {} sent elsewhere\n",
                count(self.requests, "request", "requests"),
                self.allowed_now,
                self.denied_now,
                self.elsewhere,
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That more may be allowed has to be said of a part: the flag that asks for such parts says it of none.
    #[test]
    fn what_no_part_was_said_to_allow_refutes_the_translation() {
        let compared = Compared {
            requests: 1,
            allowed_now: 1,
            ..Compared::default()
        };
        assert!(compared.refutes(false));
        assert!(!compared.refutes(true));
        let elsewhere = Compared {
            elsewhere: 1,
            ..Compared::default()
        };
        assert!(elsewhere.refutes(true));
    }
}
