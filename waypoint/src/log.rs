//! The process's own log, on stderr: levels by `CAIRN_LOG`, changed at runtime through the admin
//! address. How lines get to stderr is in `queue`. The access log is `telemetry::access_log`'s.

mod queue;
mod seldom;

use std::backtrace::BacktraceStatus;
use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

pub use queue::Writer;
pub use seldom::Seldom;

/// What is logged unless `CAIRN_LOG` says otherwise. The engine's own errors repeat what the access
/// log tells of every request, and those of the API server's client what its user says once.
const DEFAULT: &str = "info,pingora_core=off,pingora_proxy=off,kube_client=off";

static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts the log. Called once, by the commands that run for long. Dropping the writer writes what
/// is left; what is logged after that is lost.
///
/// # Errors
/// When `CAIRN_LOG` is not a filter, a log has been started already, or its thread can not start.
pub fn start() -> anyhow::Result<Writer> {
    let directives = std::env::var("CAIRN_LOG").unwrap_or_else(|_| DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&directives)
        .map_err(|e| anyhow::anyhow!("CAIRN_LOG={directives}: {e}"))?;
    let (filter, handle) = reload::Layer::new(filter);
    let writer = Writer::start(Box::new(std::io::stderr()))?;
    let text = fmt::layer()
        .with_writer(writer.lines())
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(filter)
        .with(text)
        .try_init()?;
    std::panic::set_hook(Box::new(tell_panic));
    // `try_init` succeeds once, so nothing is there yet.
    let _ = FILTER.set(handle);
    Ok(writer)
}

/// The standard hook would wait for stderr, on whatever thread it is.
fn tell_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let backtrace = std::backtrace::Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!("{panic}; please report this\n{backtrace}"),
        _ => tracing::error!("{panic}; please report this"),
    }
}

/// Changes what is logged, `info` or `cairn_waypoint=debug,h2=warn`.
///
/// # Errors
/// What is wrong with the filter, in words.
pub fn set_filter(directives: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(directives).map_err(|e| e.to_string())?;
    let handle = FILTER
        .get()
        .ok_or("the log was not started by this program")?;
    handle.reload(filter).map_err(|e| e.to_string())
}
