//! One pod of the played node: its address, its readiness, its status, and its program in a root file system of
//! its own. The first container only.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::node::{NODE, Place};
use super::sandbox;
use crate::app::App;
use crate::client;
use crate::process::Process;

/// Port of an echo application that declares none.
const ECHO_PORT: u16 = 8080;

/// Between two looks at a process that was told to end.
const LOOK: Duration = Duration::from_millis(20);

/// A pod as it was made, with the address that it got.
#[derive(Debug)]
pub(super) struct Pod {
    object: Value,
    /// Its address.
    pub ip: IpAddr,
}

impl Pod {
    pub fn new(object: Value, ip: IpAddr) -> Self {
        Self { object, ip }
    }

    fn text(&self, pointer: &str) -> &str {
        self.object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    pub fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    pub fn account(&self) -> &str {
        self.text("/spec/serviceAccountName")
    }

    pub fn path(&self) -> String {
        format!(
            "/api/v1/namespaces/{}/pods/{}",
            self.namespace(),
            self.name()
        )
    }

    pub fn spec(&self) -> &Value {
        &self.object["spec"]
    }

    /// Its first container.
    pub fn container(&self) -> &Value {
        &self.object["spec"]["containers"][0]
    }

    /// The field that the downward API gives under this path.
    pub fn field(&self, path: &str) -> String {
        match path {
            "status.podIP" | "status.podIPs" => self.ip.to_string(),
            "status.hostIP" => "127.0.0.1".to_owned(),
            "spec.nodeName" => NODE.to_owned(),
            path => {
                let (path, key) = match path.split_once("['") {
                    Some((path, key)) => (path, key.strip_suffix("']")),
                    None => (path, None),
                };
                let field = &self.object.pointer(&format!("/{}", path.replace('.', "/")));
                let field = field.map(|field| key.map_or(field, |key| &field[key]));
                text_of(field.unwrap_or(&Value::Null))
            }
        }
    }

    /// How long it may take to end.
    pub fn grace(&self) -> Duration {
        let seconds = self.spec()["terminationGracePeriodSeconds"].as_u64();
        Duration::from_secs(seconds.unwrap_or(30))
    }

    fn port(&self, port: &Value) -> u16 {
        let ports = self.container()["ports"].as_array();
        let named = |name: &str| {
            let mut ports = ports.into_iter().flatten();
            let port = ports.find(|port| port["name"] == name);
            port.and_then(|port| port["containerPort"].as_u64())
        };
        let number = port.as_u64().or_else(|| port.as_str().and_then(named));
        number
            .and_then(|port| port.try_into().ok())
            .unwrap_or(ECHO_PORT)
    }

    /// Asks its readiness probe; without one it is ready.
    pub async fn is_ready(&self) -> bool {
        let probe = &self.container()["readinessProbe"]["httpGet"];
        if probe.is_null() {
            return true;
        }
        let address = SocketAddr::new(self.ip, self.port(&probe["port"]));
        let path = probe["path"].as_str().unwrap_or("/");
        client::answers_200(&format!("http://{address}{path}")).await
    }

    /// Its status, as a merge patch.
    pub fn status(&self, ready: bool, ended: bool) -> Value {
        let now = now();
        let container = self.container();
        let word = |yes: bool| if yes { "True" } else { "False" };
        let condition = |kind: &str, status: bool| json!({ "type": kind, "status": word(status), "lastTransitionTime": now });
        let state = match ended {
            true => json!({ "terminated": { "exitCode": 1, "reason": "Error" } }),
            false => json!({ "running": { "startedAt": now } }),
        };
        json!({ "status": {
            "phase": if ended { "Failed" } else { "Running" },
            "podIP": self.ip,
            "podIPs": [{ "ip": self.ip }],
            "hostIP": "127.0.0.1",
            "startTime": now,
            "conditions": [
                condition("PodScheduled", true),
                condition("Initialized", true),
                condition("ContainersReady", ready),
                condition("Ready", ready),
            ],
            "containerStatuses": [{
                "name": container["name"],
                "image": container["image"],
                "imageID": container["image"],
                "ready": ready,
                "started": !ended,
                "restartCount": 0,
                "state": state,
            }],
        }})
    }
}

/// A value as a variable or file of the downward API: maps line by line, as `key="value"`.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            let line = |(key, value): (&String, &Value)| format!("{key}={value}\n");
            map.iter().map(line).collect()
        }
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Now, RFC 3339 in seconds.
fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

/// What runs in a pod.
#[derive(Debug)]
pub(super) enum Program {
    /// An application of the tests, for an image named `echo`.
    Echo(App),
    /// Cairn.
    Cairn(Process),
}

impl Program {
    pub async fn start(place: &Place, pod: &Pod, folder: &Path) -> Self {
        let container = pod.container();
        if container["image"]
            .as_str()
            .is_some_and(|image| image.starts_with("echo"))
        {
            let port = pod.port(&container["ports"][0]["containerPort"]);
            return Self::Echo(App::http(pod.name(), SocketAddr::new(pod.ip, port)));
        }
        let command = sandbox::command(place, pod, folder).await;
        Self::Cairn(Process::start("pod", command, folder))
    }

    pub fn ended(&mut self) -> bool {
        match self {
            Self::Echo(_) => false,
            Self::Cairn(process) => process.ended().is_some(),
        }
    }

    /// Asks it to end, and kills it after the grace period.
    pub async fn stop(self, grace: Duration) {
        let Self::Cairn(mut process) = self else {
            return;
        };
        if process.ended().is_none() {
            process.signal("TERM");
            let ended = async {
                while process.ended().is_none() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let _ = tokio::time::timeout(grace, ended).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Pod;

    #[test]
    fn fields_are_those_of_the_downward_api() {
        let object = json!({ "metadata": { "name": "web", "labels": { "a/b": "c" } } });
        let pod = Pod::new(object, "198.18.0.1".parse().unwrap());
        assert_eq!(pod.field("metadata.name"), "web");
        assert_eq!(pod.field("metadata.labels['a/b']"), "c");
        assert_eq!(pod.field("metadata.labels"), "a/b=\"c\"\n");
        assert_eq!(pod.field("status.podIP"), "198.18.0.1");
    }
}
