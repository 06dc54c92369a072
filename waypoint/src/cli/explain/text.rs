//! The text form of a report: one fact a line, the verdict first to the eye.

use std::fmt::{Result, Write};

use cairn_authz::DryRunExplanation;

use super::chain;
use crate::cli::output::{Paint, count};
use crate::explain::{Answer, Asked, Backend, Endpoint, Refused, Report, Route};

/// Lines under a heading stand below its first.
const INDENT: &str = "           ";

/// Endpoints written out; the rest is counted.
const ENDPOINTS_MAX: usize = 10;

/// Renders a report.
pub(super) fn render(
    report: &Report,
    verbose: bool,
    paint: Paint,
) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::new();
    head(&mut text, report)?;
    if let Some(refused) = &report.refused {
        refusal(&mut text, refused, paint)?;
    }
    for asked in &report.asks {
        writeln!(text, "{}", paint.odd(asked_words(asked)))?;
    }
    verdict(&mut text, report, verbose, paint)?;
    if let Some(route) = &report.route {
        writeln!(text, "route      {}", route_words(route))?;
    }
    for fault in &report.faults {
        writeln!(text, "fault      {}", paint.odd(fault))?;
    }
    if let Some(answer) = &report.answer {
        writeln!(text, "client     {}", answer_words(answer, paint))?;
    }
    let several = report.backends.len() > 1;
    for (index, backend) in report.backends.iter().enumerate() {
        let heading = if index == 0 { "goes to    " } else { INDENT };
        write_backend(&mut text, heading, backend, several, paint)?;
    }
    chain::write_chain(&mut text, report, verbose, paint)?;
    if report.configuration_errors > 0 {
        let errors = count(report.configuration_errors, "error", "errors");
        writeln!(
            text,
            "{}",
            paint.odd(format_args!(
                "note       the configuration has {errors}, see `cairn check`"
            ))
        )?;
    }
    Ok(text)
}

fn head(text: &mut String, report: &Report) -> Result {
    let client = &report.client;
    let at = match (&client.pod, client.ip.is_unspecified()) {
        (Some(pod), _) => format!("{}, Pod/{pod}", client.ip),
        (None, true) => "address unknown, --from-ip sets it".to_owned(),
        (None, false) => client.ip.to_string(),
    };
    writeln!(text, "from       {} ({at})", client.identity)?;
    match &report.destination {
        None => writeln!(text, "to         {}", report.to)?,
        Some(destination) => {
            let what = match &destination.service {
                Some(service) => format!("Service/{service}"),
                None => "a workload's own address".to_owned(),
            };
            writeln!(
                text,
                "to         {} ({what} at {}, taken as {})",
                report.to, destination.address, destination.taken_as
            )?;
        }
    }
    if let Some(request) = &report.request {
        writeln!(
            text,
            "request    {} {}  Host: {}",
            request.method, request.sent, request.authority
        )?;
        if let Some(normalised) = request.normalised.as_ref().filter(|n| **n != request.sent) {
            writeln!(text, "normalised {normalised}")?;
        }
    }
    if let Some(principal) = &report.request_principal {
        writeln!(text, "token      {principal}")?;
    }
    Ok(())
}

fn asked_words(asked: &Asked) -> String {
    let Asked {
        provider,
        service,
        protocol,
        policy,
        rule,
        ..
    } = asked;
    let silent = match asked.fails_open {
        true => "passes without an answer",
        false => "is refused without an answer",
    };
    format!(
        "asks       provider {provider} ({service}, {protocol}) by {policy} rule {rule}; it {silent}\n\
         {INDENT}what follows holds if it allows, and changes nothing"
    )
}

fn refusal(text: &mut String, refused: &Refused, paint: Paint) -> Result {
    let what = match (refused.phase, refused.status) {
        ("handshake", _) => "REFUSED at the TLS handshake".to_owned(),
        (_, Some(status)) => format!("REFUSED: CONNECT is answered {status}"),
        (_, None) => "REFUSED: the stream is closed without a byte".to_owned(),
    };
    writeln!(text, "client     {}: {}", paint.bad(what), refused.reason)
}

fn verdict(text: &mut String, report: &Report, verbose: bool, paint: Paint) -> Result {
    let Some(explanation) = &report.verdict else {
        return Ok(());
    };
    let word = if explanation.allowed {
        paint.good("ALLOW")
    } else {
        paint.bad("DENY")
    };
    let by = match (&explanation.policy, explanation.rule) {
        (Some(policy), Some(rule)) => format!("by {policy} rule {rule}"),
        (Some(policy), None) => format!("by {policy}"),
        (None, _) => "by default".to_owned(),
    };
    writeln!(text, "verdict    {word} {by}: {}", explanation.reason)?;
    for audited in &explanation.audit {
        let rule = audited.rule.map(|rule| format!(" rule {rule}"));
        let policy = &audited.policy;
        writeln!(
            text,
            "{INDENT}audited by {policy}{}",
            rule.unwrap_or_default()
        )?;
    }
    if let Some(run) = &explanation.dry_run {
        write_dry_run(text, run, paint)?;
    }
    if verbose {
        // The first line says what the verdict's line has said.
        for line in explanation.to_string().lines().skip(1) {
            writeln!(text, "{INDENT}{line}")?;
        }
    }
    Ok(())
}

/// What would be, in colour where that is another answer.
fn write_dry_run(text: &mut String, run: &DryRunExplanation, paint: Paint) -> Result {
    let word = if run.allowed { "allow" } else { "deny" };
    let would = match run.changes {
        true => paint.odd(format_args!("would {word}")),
        false => format!("would {word}, as now"),
    };
    let by = match (&run.policy, run.rule) {
        (Some(policy), Some(rule)) => format!("by {policy} rule {rule}"),
        (Some(policy), None) => format!("by {policy}"),
        (None, _) => "by default".to_owned(),
    };
    writeln!(text, "dry run    {would} {by}: {}", run.reason)?;
    for outcome in &run.outcomes {
        writeln!(text, "{INDENT}{outcome}")?;
    }
    Ok(())
}

fn route_words(route: &Route) -> String {
    match route {
        Route::Default => "none attached: the service itself".to_owned(),
        Route::None => "none matches".to_owned(),
        Route::Rule {
            route,
            rule,
            name,
            matched,
        } => {
            let name = name.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
            format!("{route} rule {rule}{name}: {matched}")
        }
    }
}

fn answer_words(answer: &Answer, paint: Paint) -> String {
    let mut words = match answer.grpc_status {
        Some(grpc) => format!("{} grpc-status {grpc}", answer.status),
        None => answer.status.to_string(),
    };
    if !answer.body.is_empty() {
        words.push_str(&format!(" \"{}\"", answer.body.trim_end()));
    }
    let mut words = if answer.location.is_some() {
        paint.good(words)
    } else {
        paint.bad(words)
    };
    if let Some(location) = &answer.location {
        words.push_str(&format!(" to {location}"));
    }
    words.push_str(&format!(" ({})", answer.details));
    if let Some(reason) = &answer.reason {
        words.push_str(&format!(": {reason}"));
    }
    words
}

fn write_backend(
    text: &mut String,
    heading: &str,
    backend: &Backend,
    several: bool,
    paint: Paint,
) -> Result {
    let share = if several {
        format!("{:>5.1} % ", backend.share_percent)
    } else {
        String::new()
    };
    writeln!(
        text,
        "{heading}{share}{} (weight {})",
        backend.name, backend.weight
    )?;
    if let Some(answer) = &backend.answer {
        writeln!(text, "{INDENT}  {}", answer_words(answer, paint))?;
        return Ok(());
    }
    if let Some(path) = &backend.path {
        writeln!(text, "{INDENT}  as {path}")?;
    }
    for change in &backend.request_headers {
        writeln!(text, "{INDENT}  request header  {change}")?;
    }
    for change in &backend.response_headers {
        writeln!(text, "{INDENT}  response header {change}")?;
    }
    if let Some(carrier) = &backend.session {
        writeln!(
            text,
            "{INDENT}  a session keeps its endpoint, by its {carrier}"
        )?;
    }
    if let Some(how) = &backend.looked_up {
        writeln!(text, "{INDENT}  {how}")?;
    }
    for endpoint in backend.endpoints.iter().take(ENDPOINTS_MAX) {
        writeln!(text, "{INDENT}  {}", endpoint_words(endpoint))?;
    }
    let more = backend.endpoints.len().saturating_sub(ENDPOINTS_MAX);
    if more > 0 {
        writeln!(text, "{INDENT}  and {more} more")?;
    }
    Ok(())
}

fn endpoint_words(endpoint: &Endpoint) -> String {
    let mut words = match &endpoint.hbone {
        Some(identity) => format!("{}  by HBONE to {identity}", endpoint.address),
        None => format!("{}  by plain TCP", endpoint.address),
    };
    if let Some(behind) = &endpoint.behind {
        words.push_str(&format!(", the gateway of {behind}"));
    }
    if let Some(name) = &endpoint.tls {
        words.push_str(&format!(", TLS for {name} inside"));
    }
    if let Some(pod) = &endpoint.pod {
        words.push_str(&format!(", Pod/{pod}"));
    }
    words
}
