//! What an error of the engine means: one of the outcomes of `cairn-filters`' table.

use cairn_filters::outcome::Outcome;
use pingora_error::{Error, ErrorSource, ErrorType};

use super::connector::{NOT_ASKED, TUNNELS_FULL};

/// The outcome behind an error that ended an exchange.
pub fn outcome_of(error: &Error) -> Outcome {
    match error.esource() {
        ErrorSource::Downstream => of_client(error.etype()),
        ErrorSource::Upstream => of_upstream(error.etype()),
        ErrorSource::Internal | ErrorSource::Unset => Outcome::Internal,
    }
}

fn of_client(etype: &ErrorType) -> Outcome {
    match etype {
        ErrorType::ReadError
        | ErrorType::WriteError
        | ErrorType::ConnectionClosed
        | ErrorType::H2Error
        | ErrorType::ReadTimedout
        | ErrorType::WriteTimedout => Outcome::ClientGone,
        _ => Outcome::BadRequest,
    }
}

fn of_upstream(etype: &ErrorType) -> Outcome {
    match etype {
        ErrorType::ConnectTimedout => Outcome::ConnectTimeout,
        full if *full == TUNNELS_FULL => Outcome::UpstreamOverflow,
        ours if *ours == NOT_ASKED => Outcome::ConnectFailed,
        ErrorType::ConnectError
        | ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectProxyFailure
        | ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError
        | ErrorType::SocketError
        | ErrorType::BindError => Outcome::ConnectFailed,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Outcome::UpstreamTimeout,
        ErrorType::H2Error => Outcome::UpstreamReset,
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 | ErrorType::H2Downgrade => {
            Outcome::UpstreamProtocol
        }
        _ => Outcome::UpstreamClosed,
    }
}

/// Whether an endpoint was not reached for a reason that says nothing of it.
pub fn is_ours(error: &Error) -> bool {
    [TUNNELS_FULL, NOT_ASKED].contains(error.etype())
}

/// An error of the engine in words: ours when it is one of ours.
pub fn words_of(error: &Error) -> String {
    match &error.context {
        Some(context) => context.as_str().to_owned(),
        None => error.etype().as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(etype: ErrorType) -> Outcome {
        let mut error = Error::new(etype);
        error.as_up();
        outcome_of(&error)
    }

    #[test]
    fn where_an_error_comes_from_decides_who_is_blamed() {
        assert_eq!(upstream(ErrorType::ReadError), Outcome::UpstreamClosed);
        assert_eq!(
            upstream(ErrorType::ConnectTimedout),
            Outcome::ConnectTimeout
        );
        assert_eq!(
            upstream(ErrorType::TLSHandshakeFailure),
            Outcome::ConnectFailed
        );
        assert_eq!(upstream(TUNNELS_FULL), Outcome::UpstreamOverflow);
        assert_eq!(upstream(NOT_ASKED), Outcome::ConnectFailed);
        let mut error = Error::new(ErrorType::ReadError);
        error.as_down();
        assert_eq!(outcome_of(&error), Outcome::ClientGone);
        assert_eq!(
            outcome_of(&Error::new(ErrorType::ReadError)),
            Outcome::Internal
        );
    }
}
