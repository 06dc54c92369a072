//! `tls` of a DestinationRule: what TLS is asked for towards endpoints, and why nothing may be sent where
//! it can not be given: plain text where TLS was asked for must never be (specs/istio-waypoint.md 4.7).

use std::sync::Arc;

use super::traffic_policy_values::Reading;
use crate::diagnostics::{Code, Diagnostic};
use crate::resources::destination_rule::ClientTls;
use crate::snapshot::{ClientCertificate, ClusterSettings, Service, TlsOrigination, TlsTrust};

const CLOSED: &str = "nothing is sent to this host: requests are answered 503";

/// What `tls` asks for. HBONE stays whatever the mode is.
pub(super) enum Asked {
    /// Nothing beyond it.
    Nothing,
    /// The tunnel: no plain text where there is none.
    Tunnel,
    /// TLS of our own.
    Own(Arc<TlsOrigination>),
}

/// Reads `tls`.
///
/// # Errors
/// Why nothing may be sent; a finding says it.
pub(super) fn read(
    written: &ClientTls,
    path: &str,
    reading: &mut Reading<'_>,
) -> Result<Asked, Arc<str>> {
    let mutual = match written.mode.as_deref().unwrap_or("DISABLE") {
        "DISABLE" => return Ok(Asked::Nothing),
        "ISTIO_MUTUAL" => return Ok(Asked::Tunnel),
        "SIMPLE" => false,
        "MUTUAL" => true,
        other => {
            let message = format!("tls.mode {other} is not known");
            let hint = "DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL";
            return Err(close(Code::BadValue, message, hint, "mode", path, reading));
        }
    };
    if set(&written.credential_name).is_some() {
        let message =
            "tls.credentialName needs the Kubernetes API, which is not read yet".to_owned();
        let hint =
            "mount the Secret and name its files: caCertificates, clientCertificate, privateKey";
        return Err(close(
            Code::Unsupported,
            message,
            hint,
            "credentialName",
            path,
            reading,
        ));
    }
    if set(&written.ca_crl).is_some() {
        let message = "tls.caCrl is not supported: revoked certificates would be taken".to_owned();
        let hint = "leave it out if that is acceptable";
        return Err(close(
            Code::Unsupported,
            message,
            hint,
            "caCrl",
            path,
            reading,
        ));
    }
    let client = match (set(&written.client_certificate), set(&written.private_key)) {
        (Some(chain), Some(key)) if mutual => Some(ClientCertificate {
            chain: chain.into(),
            key: key.into(),
        }),
        _ if mutual => {
            let message = "tls.mode MUTUAL needs clientCertificate and privateKey".to_owned();
            let hint = "paths of PEM files that the waypoint can read";
            return Err(close(
                Code::MissingField,
                message,
                hint,
                "mode",
                path,
                reading,
            ));
        }
        (None, None) => None,
        _ => {
            let message = "clientCertificate and privateKey mean nothing with mode SIMPLE";
            let finding = Diagnostic::warning(Code::Unsupported, message)
                .with_effect("the endpoint is shown no certificate")
                .with_hint("mode: MUTUAL");
            reading.find(finding, &format!("{path}.mode"));
            None
        }
    };
    let names = written.subject_alt_names.iter().flatten();
    Ok(Asked::Own(Arc::new(TlsOrigination {
        trust: trust(written, path, reading),
        client,
        server_name: set(&written.sni).map(Into::into),
        names: names.map(|name| name.as_str().into()).collect(),
        origin: reading.object.origin.clone(),
    })))
}

fn set(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn trust(written: &ClientTls, path: &str, reading: &mut Reading<'_>) -> TlsTrust {
    if written.insecure_skip_verify == Some(true) {
        let message = "insecureSkipVerify takes any certificate for the host's";
        let finding = Diagnostic::warning(Code::NotEnforced, message)
            .with_effect("whoever is between here and the host can read and change everything")
            .with_hint("name who issued its certificate in caCertificates");
        reading.find(finding, &format!("{path}.insecureSkipVerify"));
        return TlsTrust::Unverified;
    }
    match set(&written.ca_certificates) {
        None | Some("system") => TlsTrust::System,
        Some(file) => TlsTrust::File(file.into()),
    }
}

fn close(
    code: Code,
    message: String,
    hint: &str,
    field: &str,
    path: &str,
    reading: &mut Reading<'_>,
) -> Arc<str> {
    let reason = message.as_str().into();
    let finding = Diagnostic::error(code, message)
        .with_effect(CLOSED)
        .with_hint(hint);
    reading.find(finding, &format!("{path}.{field}"));
    reason
}

/// The settings of a rule as they are for one service: whose name is asked for, and what else its
/// certificate may say.
pub(super) fn of_service(
    settings: &Arc<ClusterSettings>,
    service: &Service,
) -> Arc<ClusterSettings> {
    let Some(tls) = &settings.tls else {
        return settings.clone();
    };
    let host = (!service.hostname.starts_with('*')).then(|| service.hostname.clone());
    let names = match tls.names.as_slice() {
        [] => service.alt_names.clone(),
        names => names.to_vec(),
    };
    Arc::new(ClusterSettings {
        tls: Some(Arc::new(TlsOrigination {
            server_name: tls.server_name.clone().or(host),
            names,
            ..TlsOrigination::clone(tls)
        })),
        ..ClusterSettings::clone(settings)
    })
}
