//! The waypoint's access log while the demo runs: kept in a file for the user, and told line by line
//! to the tour, which shows the reasons it finds there.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use crate::telemetry::access_log;

/// Lines that wait for the tour; beyond, it misses them, and the file does not.
const LINES_WAITING_MAX: usize = 4096;

/// How long a line may take from the end of its request; the log is written some fifty times a second.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);

/// The access log.
pub struct Log {
    lines: Receiver<Value>,
    // Dropped, it writes what is left.
    _writer: Option<access_log::Writer>,
}

impl Log {
    /// Switches the access log on, into a file. It can be switched on once in a process.
    ///
    /// # Errors
    /// When the file or the log's thread can not be had.
    pub fn start(file: &Path) -> io::Result<Self> {
        let (told, lines) = channel(LINES_WAITING_MAX);
        let sink = Sink {
            file: File::create(file)?,
            partial: Vec::new(),
            told,
        };
        Ok(Self {
            lines,
            _writer: access_log::start(Box::new(sink))?,
        })
    }

    /// The next line that has this value under this key; those before it are skipped.
    pub async fn line(&mut self, key: &str, value: &str) -> Option<Value> {
        let found = async {
            loop {
                let line = self.lines.recv().await?;
                if line.get(key).and_then(Value::as_str) == Some(value) {
                    return Some(line);
                }
            }
        };
        timeout(LINE_TIMEOUT, found).await.ok().flatten()
    }
}

struct Sink {
    file: File,
    partial: Vec<u8>,
    told: Sender<Value>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            if let Ok(line) = serde_json::from_slice(&line) {
                // Nobody listens after the tour.
                let _ = self.told.try_send(line);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
