//! The messages of `istio.v1.auth.IstioCertificateService`, as far as they are filled or looked at here.
//! Field numbers are the protocol's.

/// The method, as gRPC names it.
pub const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// What is asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CertificateRequest {
    /// PKCS#10, PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// How long it should be valid, seconds. The CA may give less.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
}

/// What is handed out.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CertificateResponse {
    /// PEM: the leaf, intermediates, the root last; an element may hold several.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}
