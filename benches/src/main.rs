//! `cairn-bench`: measures Cairn beside Envoy. `benches/README.md` says how to read it.

use std::path::PathBuf;

use cairn_benches::load::LoadArgs;
use cairn_benches::runner::Options;
use clap::{Parser, Subcommand};
use tokio::task::LocalSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    about,
    after_help = "Example: cairn-bench run --quick --envoy target/venv/bin/envoy"
)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, print tables, keep the rows
    Run(Box<Options>),
    /// Put one load on a tunnel address and print what came of it as JSON
    Load(LoadArgs),
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
    match Line::parse().command {
        Command::Run(options) => {
            tasks.block_on(&runtime, cairn_benches::runner::run(options.settle()))
        }
        Command::Load(line) => {
            let outcome = tasks.block_on(&runtime, cairn_benches::load::run(&line.order()))?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        Command::Backend { identity_dir } => tasks.block_on(&runtime, async {
            let addresses = cairn_benches::backend::listen(&identity_dir).await?;
            println!("{}", serde_json::to_string(&addresses)?);
            std::future::pending::<anyhow::Result<()>>().await
        }),
    }
}
