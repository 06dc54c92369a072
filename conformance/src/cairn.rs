//! `cairn run` as a child process, and its endpoints for operators.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::client;
use crate::net::free_address;
use crate::process::{self, Process};
use crate::workspace;

/// A running waypoint.
#[derive(Debug)]
pub struct Cairn {
    /// The process.
    pub process: Process,
    /// Where clients connect.
    pub hbone: SocketAddr,
    /// Metrics.
    pub metrics: SocketAddr,
    /// Readiness.
    pub ready: SocketAddr,
    /// Admin.
    pub admin: SocketAddr,
}

/// Where a waypoint is to listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For clients.
    pub hbone: SocketAddr,
    /// For Prometheus.
    pub metrics: SocketAddr,
    /// For probes.
    pub ready: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
}

impl Addresses {
    /// Free ports of an address.
    pub fn free(ip: IpAddr) -> Self {
        let [hbone, metrics, ready, admin] = [(); 4].map(|()| free_address(ip));
        Self {
            hbone,
            metrics,
            ready,
            admin,
        }
    }

    /// The flags that say so.
    pub fn flags(&self) -> [String; 8] {
        let [hbone, metrics, ready, admin] =
            [self.hbone, self.metrics, self.ready, self.admin].map(|at| at.to_string());
        let flag = |name: &str| name.to_owned();
        [
            flag("--hbone-addr"),
            hbone,
            flag("--metrics-addr"),
            metrics,
            flag("--ready-addr"),
            ready,
            flag("--admin-addr"),
            admin,
        ]
    }

    /// The waypoint that was told so.
    pub fn of(self, process: Process) -> Cairn {
        Cairn {
            process,
            hbone: self.hbone,
            metrics: self.metrics,
            ready: self.ready,
            admin: self.admin,
        }
    }
}

impl Cairn {
    /// Starts `cairn run` on `ip`, with more variables, and waits until it says that it is ready.
    pub async fn start(
        ip: IpAddr,
        config: &Path,
        identity: &Path,
        upstream_hbone_port: u16,
        (more, variables): (&[&str], &[(String, String)]),
        logs: &Path,
    ) -> Self {
        let mut command = Command::new(workspace::cairn());
        command.envs(variables.iter().cloned());
        let options = (config, Some(identity), upstream_hbone_port, more);
        let mut started = Self::spawn(command, ip, options, logs).await;
        started.until_ready().await;
        started
    }

    /// The same with an identity from where the flags say, which it may not have yet: waits until it
    /// answers probes.
    pub async fn start_as_told(
        ip: IpAddr,
        config: &Path,
        upstream_hbone_port: u16,
        (flags, variables): (&[&str], &[(String, String)]),
        logs: &Path,
    ) -> Self {
        let mut command = Command::new(workspace::cairn());
        command.envs(variables.iter().cloned());
        let options = (config, None, upstream_hbone_port, flags);
        Self::spawn(command, ip, options, logs).await
    }

    /// Waits until it says that it is ready.
    pub async fn until_ready(&mut self) {
        let ready = self.ready;
        self.process
            .until("cairn is ready", async || is_ready(ready).await)
            .await;
    }

    /// The same for a waypoint that may have nothing to serve: waits until it listens.
    pub async fn start_unready(
        ip: IpAddr,
        config: &Path,
        identity: &Path,
        upstream_hbone_port: u16,
        more: &[&str],
        logs: &Path,
    ) -> Self {
        let command = Command::new(workspace::cairn());
        let options = (config, Some(identity), upstream_hbone_port, more);
        Self::spawn(command, ip, options, logs).await
    }

    async fn spawn(
        mut command: Command,
        ip: IpAddr,
        (config, identity, upstream_hbone_port, more): (&Path, Option<&Path>, u16, &[&str]),
        logs: &Path,
    ) -> Self {
        let addresses = Addresses::free(ip);
        command
            .arg("run")
            .arg("--config")
            .arg(config)
            .args(addresses.flags())
            .args(["--upstream-hbone-port", &upstream_hbone_port.to_string()])
            .args(more);
        if let Some(folder) = identity {
            command.arg("--identity-dir").arg(folder);
        }
        let mut process = Process::start("cairn", command, logs);
        // Without files it may have no identity yet, and then it listens to nobody but operators.
        let first = match identity {
            Some(_) => addresses.hbone,
            None => addresses.ready,
        };
        process.listening(first).await;
        addresses.of(process)
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self) -> bool {
        is_ready(self.ready).await
    }

    /// The metrics page.
    pub async fn metrics(&self) -> String {
        client::text(&client::get(self.metrics, "/metrics").await)
    }

    /// Sum of all series of a metric whose labels contain every one of `labels` (`name="value"`).
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.metrics().await, name, labels)
    }

    /// Waits until a metric has reached a value.
    pub async fn metric_reaches(&self, name: &str, labels: &[&str], value: f64) {
        process::until(&format!("{name}{labels:?} reaches {value}"), async || {
            self.metric(name, labels).await >= value
        })
        .await;
    }

    /// Waits until a gauge has come down to a value.
    pub async fn metric_falls_to(&self, name: &str, labels: &[&str], value: f64) {
        process::until(&format!("{name}{labels:?} falls to {value}"), async || {
            self.metric(name, labels).await <= value
        })
        .await;
    }

    /// `/config_dump`.
    pub async fn config_dump(&self) -> Value {
        let answer = client::get_as("localhost", self.admin, "/config_dump").await;
        serde_json::from_slice(answer.body()).expect("JSON")
    }

    /// Waits until a page of the admin address, as JSON, is as it should be, and returns it.
    pub async fn admin_shows(&self, path: &str, is_right: impl Fn(&Value) -> bool) -> Value {
        let mut found = Value::Null;
        process::until(&format!("{path} shows it"), async || {
            let answer = client::get_as("localhost", self.admin, path).await;
            found = serde_json::from_slice(answer.body()).unwrap_or_default();
            is_right(&found)
        })
        .await;
        found
    }

    /// Lines of the access log so far.
    pub fn access_log(&self) -> Vec<Value> {
        let text = self.process.stdout();
        // The last line may still be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// Waits for a line of the access log.
    pub async fn logged(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        process::until(&format!("an access log line: {what}"), async || {
            found = self.access_log().into_iter().find(|line| matches(line));
            found.is_some()
        })
        .await;
        found.expect("a line")
    }
}

async fn is_ready(address: SocketAddr) -> bool {
    client::answers_200(&format!("http://{address}/healthz/ready")).await
}

/// Sum over the series of one metric in Prometheus' text format.
pub fn sum(page: &str, name: &str, labels: &[&str]) -> f64 {
    page.lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, set) = series.split_once('{').unwrap_or((series, ""));
            let matches = found == name && labels.iter().all(|l| set.contains(l));
            matches.then(|| value.parse::<f64>().ok()).flatten()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let page = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"2\"} 4\nab 7\nc 5\n";
        assert_eq!(sum(page, "a", &[]), 7.0);
        assert_eq!(sum(page, "a", &["x=\"1\""]), 3.0);
        assert_eq!(sum(page, "c", &[]), 5.0);
        assert_eq!(sum(page, "d", &[]), 0.0);
    }
}
