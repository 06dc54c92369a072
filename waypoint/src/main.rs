//! `cairn`: hands the command line to [`cairn_waypoint::cli`], and does nothing else.

use std::process::ExitCode;

use cairn_allocator::Watched;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Watched<MiMalloc> = Watched::new(MiMalloc);

fn main() -> ExitCode {
    cairn_waypoint::cli::main()
}
