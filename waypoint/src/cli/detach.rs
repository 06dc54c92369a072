//! `cairn detach`: the way back from `cairn attach`.

use std::fmt::Write;

use cairn_config_schema::origin::ObjectKey;
use cairn_kubernetes::detach::{self, Detached, Unwanted};

use super::attach::lines;
use super::output::{self, Format, Outcome};
use super::{access, cluster};

/// Take a namespace, or single Services, from their waypoint: the labels first, then the Gateway if
/// that is asked for and nobody uses it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn detach -n shop --service web\n  cairn detach -n shop --delete-gateway\n\n\
    What is attached by a label of its own stays so, and is named. Exit code: 0 done, 1 refused or failed, 2 wrong usage."
)]
pub struct Args {
    /// Namespace of the Gateway and of what uses it
    #[arg(short, long, value_name = "NAMESPACE", value_parser = super::run::dns_name)]
    namespace: String,
    /// Only this Service; may be repeated. Without one the label of the namespace
    #[arg(long = "service", value_name = "NAME", value_parser = super::run::dns_name)]
    services: Vec<String>,
    /// Name of the Gateway
    #[arg(long, value_name = "NAME", default_value = "waypoint", value_parser = super::run::dns_name)]
    name: String,
    /// Delete the Gateway too, unless something uses it
    #[arg(long)]
    delete_gateway: bool,
    #[command(flatten)]
    access: access::Args,
    /// How to say what was done
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Runs `cairn detach`.
pub fn detach(args: Args) -> anyhow::Result<Outcome> {
    let unwanted = Unwanted {
        gateway: ObjectKey::new(args.namespace, args.name),
        services: args.services,
        delete_gateway: args.delete_gateway,
    };
    let detached = cluster::ask(args.access, async |client| {
        Ok(detach::detach(&client, &unwanted).await?)
    })?;
    match args.output {
        Format::Json => output::print_json(&detached)?,
        Format::Text => output::print(&said(&detached, &unwanted)?)?,
    }
    Ok(Outcome::Fine)
}

fn said(detached: &Detached, unwanted: &Unwanted) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    lines(&mut text, &detached.done)?;
    let gateway = &unwanted.gateway;
    match detached.still_used_by.as_slice() {
        _ if detached.unknown.is_some() => {
            let why = detached.unknown.as_deref().unwrap_or_default();
            writeln!(
                text,
                "Whether anything uses Gateway {gateway} still is not known: {why}"
            )?;
        }
        [] if unwanted.delete_gateway => {}
        [] => writeln!(
            text,
            "Nothing uses Gateway {gateway} any more; --delete-gateway deletes it."
        )?,
        users => writeln!(text, "Gateway {gateway} is used by {}.", users.join(", "))?,
    }
    writeln!(
        text,
        "What targets what was detached is enforced nowhere now: cairn doctor -n {} lists it.",
        gateway.namespace
    )?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_still_uses_the_gateway_is_named() {
        let mut detached = Detached {
            done: Vec::new(),
            still_used_by: vec!["Service shop/api".to_owned()],
            unknown: None,
        };
        let unwanted = Unwanted {
            gateway: ObjectKey::new("shop", "waypoint"),
            services: Vec::new(),
            delete_gateway: false,
        };
        let text = said(&detached, &unwanted).unwrap();
        assert!(text.contains("is used by Service shop/api."), "{text}");
        detached.still_used_by.clear();
        let text = said(&detached, &unwanted).unwrap();
        assert!(text.contains("--delete-gateway deletes it"), "{text}");
        detached.unknown = Some("list Pods: forbidden".to_owned());
        let text = said(&detached, &unwanted).unwrap();
        assert!(text.contains("not known: list Pods: forbidden"), "{text}");
        assert!(!text.contains("--delete-gateway"), "{text}");
    }
}
