//! What commands have in common that ask the API server once: which namespaces, a runtime and a client. Knows no
//! question.

use std::fmt::Write;

use cairn_kubernetes::client::{self, Client};

use super::access;
use super::output::Paint;

/// Which namespaces.
#[derive(Debug, clap::Args)]
pub struct Area {
    /// Only this namespace
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all", value_parser = super::run::dns_name)]
    namespace: Option<String>,
    /// All namespaces, which is what is meant without a namespace
    #[arg(short = 'A', long = "all-namespaces")]
    all: bool,
}

impl Area {
    /// The namespace. `None`: all.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

/// Connects and asks, on a runtime of this thread.
pub fn ask<T>(
    access: access::Args,
    question: impl AsyncFnOnce(Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = client::connect(&access.into()).await?;
        question(client).await
    })
}

/// What could not be read, one line each.
pub fn write_unread(text: &mut String, unread: &[String], paint: Paint) -> std::fmt::Result {
    for reason in unread {
        writeln!(
            text,
            "{}",
            paint.bad(format_args!(
                "not read, so that more may be wrong: {reason}"
            ))
        )?;
    }
    Ok(())
}
