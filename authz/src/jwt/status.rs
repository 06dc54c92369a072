//! Why a token is refused, in the words that Envoy's answers have: people search for them
//! (specs/istio-waypoint.md 4.9). Decides nothing.

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the messages say it
pub enum Status {
    Form,
    HeaderBase64,
    HeaderJson,
    HeaderAlgorithm,
    UnsupportedAlgorithm,
    HeaderKeyId,
    PayloadBase64,
    PayloadJson,
    IssuerNotString,
    SubjectNotString,
    TimeNotNumber,
    AudienceNotString,
    SignatureBase64,
    NotYetValid,
    Expired,
    UnknownIssuer,
    WrongAudience,
    NoKeys,
    NoSuchKey,
    BadSignature,
    TooMany,
    TooManySignatures,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Form,
        Self::HeaderBase64,
        Self::HeaderJson,
        Self::HeaderAlgorithm,
        Self::UnsupportedAlgorithm,
        Self::HeaderKeyId,
        Self::PayloadBase64,
        Self::PayloadJson,
        Self::IssuerNotString,
        Self::SubjectNotString,
        Self::TimeNotNumber,
        Self::AudienceNotString,
        Self::SignatureBase64,
        Self::NotYetValid,
        Self::Expired,
        Self::UnknownIssuer,
        Self::WrongAudience,
        Self::NoKeys,
        Self::NoSuchKey,
        Self::BadSignature,
        Self::TooMany,
        Self::TooManySignatures,
    ];

    /// Body of the answer.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Form => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::HeaderBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderJson => "Jwt header is an invalid JSON",
            Self::HeaderAlgorithm => "Jwt header [alg] field is required and must be a string",
            Self::UnsupportedAlgorithm => "Jwt header [alg] is not supported",
            Self::HeaderKeyId => "Jwt header [kid] field is not a string",
            Self::PayloadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadJson => "Jwt payload is an invalid JSON",
            Self::IssuerNotString => "Jwt payload [iss] field is not a string",
            Self::SubjectNotString => "Jwt payload [sub] field is not a string",
            Self::TimeNotNumber => "Jwt payload [exp] or [nbf] field is not an integer",
            Self::AudienceNotString => "Jwt payload [aud] field is not a string or string list",
            Self::SignatureBase64 => "Jwt signature is an invalid Base64url encoded",
            Self::NotYetValid => "Jwt not yet valid",
            Self::Expired => "Jwt is expired",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::WrongAudience => "Audiences in Jwt are not allowed",
            Self::NoKeys => "Jwks remote fetch is failed",
            Self::NoSuchKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::BadSignature => "Jwt verification fails",
            Self::TooMany | Self::TooManySignatures => "Found multiple Jwt tokens",
        }
    }

    /// Of two reasons the one that says more: that another issuer's rule does not know the token is
    /// the least, that it is not for another rule's audience the next.
    pub(super) fn or(self, other: Option<Self>) -> Self {
        let weight = |status| match status {
            Self::UnknownIssuer => 0,
            Self::WrongAudience => 1,
            _ => 2,
        };
        match other {
            Some(other) if weight(self) < weight(other) => other,
            _ => self,
        }
    }
}
