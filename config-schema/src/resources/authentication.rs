//! Istio's RequestAuthentication (security.istio.io/v1) as written. All fields of the API are here.

use serde::Deserialize;

use super::TargetRef;
use super::istio::WorkloadSelector;

/// `RequestAuthentication.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestAuthenticationSpec {
    /// Selects workloads; not for a waypoint.
    pub selector: Option<WorkloadSelector>,
    /// Deprecated single form of `targetRefs`.
    pub target_ref: Option<TargetRef>,
    /// Attachment.
    pub target_refs: Option<Vec<TargetRef>>,
    /// Issuers that are trusted, and where their tokens are.
    pub jwt_rules: Option<Vec<JwtRule>>,
}

/// One item of `jwtRules`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct JwtRule {
    pub issuer: String,
    pub audiences: Option<Vec<String>>,
    pub jwks_uri: Option<String>,
    pub jwks: Option<String>,
    pub from_headers: Option<Vec<JwtHeader>>,
    pub from_params: Option<Vec<String>>,
    pub from_cookies: Option<Vec<String>>,
    pub output_payload_to_header: Option<String>,
    pub forward_original_token: Option<bool>,
    pub output_claim_to_headers: Option<Vec<ClaimToHeader>>,
    pub timeout: Option<String>,
    pub space_delimited_claims: Option<Vec<String>>,
}

/// One item of `fromHeaders`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct JwtHeader {
    pub name: String,
    pub prefix: Option<String>,
}

/// One item of `outputClaimToHeaders`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct ClaimToHeader {
    pub header: String,
    pub claim: String,
}
