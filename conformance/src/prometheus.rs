//! A real Prometheus that scrapes one address, and what it answers to queries. Started from
//! conformance/setup.sh's folder, else as it is installed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::process::{self, Process};
use crate::{client, net, workspace};

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
}

/// One of its programs.
pub fn program(name: &str) -> PathBuf {
    let own = workspace::root()
        .join("target/prometheus/usr/bin")
        .join(name);
    if own.exists() { own } else { name.into() }
}

impl Prometheus {
    /// Starts one that scrapes `target` four times a second, and waits until it answers.
    pub async fn start(target: SocketAddr, folder: &Path) -> Self {
        let config = folder.join("prometheus.yaml");
        let text = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\nscrape_configs:\n\
             - job_name: cairn\n  static_configs: [{{targets: [\"{target}\"]}}]\n"
        );
        std::fs::write(&config, text).expect("a configuration");
        let address = net::free_address(Ipv4Addr::LOCALHOST.into());
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let mut process = Process::start("prometheus", command, folder);
        process.listening(address).await;
        let ready = format!("http://{address}/-/ready");
        process::until("Prometheus is ready", async || {
            client::answers_200(&ready).await
        })
        .await;
        Self { process, address }
    }

    /// The series that an instant query gives: labels and value.
    pub async fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let url = format!("http://{}/api/v1/query", self.address);
        let expression = format!("query={query}");
        let arguments = ["-s", "-G", &url, "--data-urlencode", &expression];
        let (_, answer, said) = client::curl(&arguments).await;
        let answer: Value = serde_json::from_str(&answer)
            .unwrap_or_else(|e| panic!("{e}: {answer}{said}{}", self.process.stderr()));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let series = answer["data"]["result"].as_array().expect("a vector");
        let one = |series: &Value| {
            let value = series["value"][1].as_str().expect("a value");
            (series["metric"].clone(), value.parse().expect("a number"))
        };
        series.iter().map(one).collect()
    }

    /// Waits until a query gives what is asked for.
    pub async fn shows(
        &self,
        query: &str,
        is_it: impl Fn(&[(Value, f64)]) -> bool,
    ) -> Vec<(Value, f64)> {
        let mut found = Vec::new();
        process::until(&format!("Prometheus shows {query}"), async || {
            found = self.query(query).await;
            is_it(&found)
        })
        .await;
        found
    }
}
