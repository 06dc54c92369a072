//! `cairn`: hands the command line to [`cairn_waypoint::cli`], and does nothing else.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cairn_waypoint::cli::main()
}
