//! `cairn-bench`: measures Cairn beside Envoy. `benches/README.md` says how to read it.

use std::path::PathBuf;

use cairn_benches::load::LoadArgs;
use cairn_benches::plain::Plain;
use cairn_benches::runner::Options;
use clap::{Parser, Subcommand};
use tokio::task::LocalSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Cairn beside Envoy, prints tables and keeps the rows
#[derive(Parser)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example: cairn-bench --quick --envoy target/venv/bin/envoy"
)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Put one load on a tunnel address and print what came of it as JSON
    Load(LoadArgs),
    /// Load without a tunnel, for the kernel redirect (benches/redirect.sh)
    #[command(subcommand)]
    Plain(Plain),
    /// Serve the application, plain and behind a destination tunnel, until killed
    Backend {
        /// Folder with cert-chain.pem, key.pem and root-cert.pem
        #[arg(long)]
        identity_dir: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = LocalSet::new();
    let line = Line::parse();
    match line.command {
        None => tasks.block_on(&runtime, cairn_benches::runner::run(line.options.settle())),
        Some(Command::Load(load)) => {
            let outcome = tasks.block_on(&runtime, cairn_benches::load::run(&load.order()))?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        Some(Command::Plain(plain)) => tasks.block_on(&runtime, cairn_benches::plain::run(plain)),
        Some(Command::Backend { identity_dir }) => tasks.block_on(&runtime, async {
            let addresses = cairn_benches::backend::listen(&identity_dir).await?;
            println!("{}", serde_json::to_string(&addresses)?);
            std::future::pending::<anyhow::Result<()>>().await
        }),
    }
}
