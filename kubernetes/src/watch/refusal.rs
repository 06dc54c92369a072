//! Why the API server did not give what it was asked for, in the few classes that matter here.

use std::fmt;

use kube_core::response::Status;

/// A class of refusals; a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No answer: no connection, or one that broke.
    Unreachable,
    /// 401: it does not know us.
    Unauthorized,
    /// 403: we may not.
    Forbidden,
    /// 404: there is no such kind.
    Absent,
    /// 410: the version we stood at is no longer known; the kind is listed again.
    Expired,
    /// 429, 503 and other answers of a server in trouble.
    Trouble,
    /// An answer that can not be read.
    Malformed,
}

impl Reason {
    /// All, for metrics that show what has not happened yet.
    pub const ALL: [Self; 7] = [
        Self::Unreachable,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Absent,
        Self::Expired,
        Self::Trouble,
        Self::Malformed,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Absent => "absent",
            Self::Expired => "expired",
            Self::Trouble => "trouble",
            Self::Malformed => "malformed",
        }
    }
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Its class.
    pub reason: Reason,
    /// What the API server said, or what went wrong.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Refusal {
    /// An answer that can not be read.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self {
            reason: Reason::Malformed,
            message: message.into(),
        }
    }

    /// No answer.
    pub fn unreachable(error: &dyn std::error::Error) -> Self {
        // The causes, for the outermost error says "client error" and no more.
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !message.contains(&words) {
                message = format!("{message}: {words}");
            }
            cause = error.source();
        }
        Self {
            reason: Reason::Unreachable,
            message,
        }
    }
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        let reason = match (status.code, status.reason.as_str()) {
            (401, _) => Reason::Unauthorized,
            (403, _) => Reason::Forbidden,
            (404, _) => Reason::Absent,
            (410, _) | (_, "Expired" | "Gone") => Reason::Expired,
            _ => Reason::Trouble,
        };
        let message = match status.message.trim() {
            "" => format!("status {} {}", status.code, status.reason),
            message => message.to_owned(),
        };
        Self { reason, message }
    }
}

impl From<kube_client::Error> for Refusal {
    fn from(error: kube_client::Error) -> Self {
        match error {
            kube_client::Error::Api(status) => Self::from(&*status),
            kube_client::Error::SerdeError(error) => Self::malformed(error.to_string()),
            kube_client::Error::FromUtf8(error) => Self::malformed(error.to_string()),
            other => Self::unreachable(&other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_code_and_a_watch_that_expired_by_its_reason_too() {
        let class = |code, reason: &str| {
            let status = Status {
                code,
                reason: reason.to_owned(),
                ..Status::default()
            };
            Refusal::from(&status).reason
        };
        assert_eq!(class(401, "Unauthorized"), Reason::Unauthorized);
        assert_eq!(class(403, "Forbidden"), Reason::Forbidden);
        assert_eq!(class(404, "NotFound"), Reason::Absent);
        assert_eq!(class(410, "Expired"), Reason::Expired);
        assert_eq!(class(0, "Expired"), Reason::Expired);
        assert_eq!(class(503, "ServiceUnavailable"), Reason::Trouble);
        assert_eq!(class(429, "TooManyRequests"), Reason::Trouble);
    }
}
