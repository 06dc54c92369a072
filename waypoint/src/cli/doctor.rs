//! `cairn doctor`: the ways past the waypoints, and what closes them.

use std::fmt::Write;

use cairn_kubernetes::client::connect_to_pods;
use cairn_kubernetes::cluster as api;
use cairn_kubernetes::doctor::{self, Asked, Examined, Matrix, Outcome as OnWay};
use cairn_kubernetes::objects;

use super::output::{self, Format, Outcome, Paint};
use super::{access, cluster};

/// For each Service with a policy that only a waypoint enforces: every way to its pods, whether the
/// policy holds there, and what closes those where it does not. Judged from the cluster's objects, and
/// from what the pods of waypoints and agents say is in force, asked through the API server; nothing
/// is sent to a service.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn doctor -n shop\n  cairn doctor -n shop --offline\n  cairn doctor -n shop --policies | kubectl apply -f -\n\n\
    Exit code: 0 no way past a policy and nothing to mend, 1 there is, or not everything could be read, 2 wrong usage."
)]
pub struct Args {
    #[command(flatten)]
    area: cluster::Area,
    /// Print only the policies that close what policies can close, as YAML
    #[arg(long, conflicts_with = "output")]
    policies: bool,
    /// Ask no pods: judge by the objects alone
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    access: access::Args,
    #[command(flatten)]
    istio: access::Istio,
    /// How to answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Runs `cairn doctor`.
pub fn doctor(args: Args) -> anyhow::Result<Outcome> {
    let namespace = args.area.namespace();
    let access = args.access.clone();
    let matrix = cluster::ask(args.access, async |client| {
        let read = api::read_with_agents(&client, &args.istio.istio_namespace).await?;
        // What closes ways is the same whatever is in force now.
        if args.offline || args.policies {
            return Ok(doctor::examine(&read, namespace, None));
        }
        let pods = connect_to_pods(&access.into()).await?;
        let (read, answers) = doctor::ask((&client, &pods), read, namespace).await?;
        Ok(doctor::examine(&read, namespace, Some(&answers)))
    })?;
    match args.output {
        _ if args.policies => output::print(&yaml(&matrix)?)?,
        Format::Json => output::print_json(&matrix)?,
        Format::Text => output::print(&text(&matrix, Paint::for_stdout())?)?,
    }
    Ok(match matrix.has_gaps() {
        true => Outcome::No,
        false => Outcome::Fine,
    })
}

fn text(matrix: &Matrix, paint: Paint) -> anyhow::Result<String> {
    let mut text = String::new();
    if matrix.services.is_empty() {
        writeln!(
            text,
            "no Service here has a policy that a waypoint enforces"
        )?;
    }
    for service in &matrix.services {
        write_service(&mut text, service, paint)?;
    }
    for asked in &matrix.asked {
        write_asked(&mut text, asked, paint)?;
    }
    cluster::write_unread(&mut text, &matrix.unread, paint)?;
    if !matrix.remedies().is_empty() {
        writeln!(
            text,
            "\n# To apply: cairn doctor --policies | kubectl apply -f -. From then on these pods are reached through\n\
            # their waypoint alone: whoever calls them by their own addresses must go by the Service."
        )?;
        text.push_str(&yaml(matrix)?);
    }
    Ok(text)
}

fn write_service(text: &mut String, service: &Examined, paint: Paint) -> std::fmt::Result {
    let waypoint = service.waypoint.as_deref().unwrap_or("none");
    writeln!(
        text,
        "{}  waypoint {waypoint}; {}",
        paint.strong(&service.service),
        service.policies.join(", ")
    )?;
    for way in &service.ways {
        let outcome = format!("{:<13}", way.outcome.words());
        let outcome = match way.outcome {
            OnWay::Bypass => paint.bad(outcome),
            OnWay::Enforced | OnWay::NotReachable => paint.good(outcome),
            OnWay::Elsewhere => paint.faint(outcome),
        };
        writeln!(text, "  {outcome}  {}: {}", way.from.words(), way.why)?;
        if let Some(close) = &way.close {
            writeln!(text, "                 close: {close}")?;
        }
    }
    Ok(())
}

fn write_asked(text: &mut String, asked: &Asked, paint: Paint) -> std::fmt::Result {
    let node = match asked.node.as_str() {
        "" => String::new(),
        node => format!(" on {node}"),
    };
    let state = match asked.mend {
        Some(_) => paint.bad(&asked.state),
        None => paint.good(&asked.state),
    };
    writeln!(
        text,
        "{}  {} {}{node}: {state}",
        paint.strong(format_args!("Pod {}", asked.pod)),
        asked.role.words(),
        asked.gateway,
    )?;
    if let Some(mend) = &asked.mend {
        writeln!(text, "                 mend: {mend}")?;
    }
    Ok(())
}

fn yaml(matrix: &Matrix) -> anyhow::Result<String> {
    objects::yaml(matrix.remedies().into_iter().map(|remedy| &remedy.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_kubernetes::doctor::{From, Role, Way};

    #[test]
    fn each_way_has_a_line_and_what_closes_it() {
        let matrix = Matrix {
            services: vec![Examined {
                service: "shop/web".into(),
                policies: vec!["AuthorizationPolicy/shop/readers".into()],
                waypoint: Some("shop/waypoint".into()),
                ways: vec![
                    Way {
                        from: From::MeshByService,
                        outcome: OnWay::Enforced,
                        why: "by Gateway shop/waypoint".into(),
                        close: None,
                    },
                    Way {
                        from: From::MeshByPod,
                        outcome: OnWay::Bypass,
                        why: "Pod shop/web-1: nothing keeps others from it".into(),
                        close: Some("apply the AuthorizationPolicy below".into()),
                    },
                ],
                remedy: None,
            }],
            asked: vec![Asked {
                pod: "shop/waypoint-1".into(),
                role: Role::Waypoint,
                gateway: "shop/waypoint".into(),
                node: "node-a".into(),
                state: "ready, and refuses every tunnel".into(),
                mend: Some("`cairn status -n shop` says why".into()),
            }],
            unread: Vec::new(),
        };
        assert_eq!(
            text(&matrix, Paint::none()).unwrap(),
            "shop/web  waypoint shop/waypoint; AuthorizationPolicy/shop/readers\n  \
             enforced       clients in the mesh, by the Service's address: by Gateway shop/waypoint\n  \
             BYPASS         clients in the mesh, by the address of a pod: Pod shop/web-1: nothing keeps others from it\n                 \
             close: apply the AuthorizationPolicy below\n\
             Pod shop/waypoint-1  waypoint shop/waypoint on node-a: ready, and refuses every tunnel\n                 \
             mend: `cairn status -n shop` says why\n"
        );
        assert!(matrix.has_gaps());
    }
}
