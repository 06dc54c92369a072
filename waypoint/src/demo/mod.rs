//! A mesh in one process on loopback: applications, the tunnels in front of them, a waypoint, and a
//! tour that tries it. `cairn demo` shows it; tests use its parts. Nothing of it is in a data path.

pub mod app;
pub mod destination;
mod lab;
mod log;
mod table;
mod tour;

pub use lab::{Client, Lab};
pub use log::Log;
pub use table::{Line, Table};
pub use tour::{DB, WEB, tour};

use tokio::task::AbortHandle;

/// A task that ends, with all that it started, when this is dropped.
#[derive(Debug)]
pub struct Background(AbortHandle);

impl Background {
    /// Runs a task in the background.
    pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}
