//! Real programs at both ends: nginx with a flagged and an unflagged port, and curl in a pod.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use cairn_conformance::process::Process;

use crate::lab::Pod;
use crate::mesh::{DEADLINE, Mesh, log_lines, until};
use crate::processes::command;

/// Port 80 is HTTP and has a route for reading alone; port 81 is nobody's business.
const SHOP: &str = "---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.14, ports: [{name: http, port: 80}, {name: tcp, port: 81}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-1, namespace: shop, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: ['10.97.0.5']}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: readers, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: shop, port: 80}]
  rules:
  - matches: [{method: GET}]
    backendRefs: [{name: shop, port: 80}]
";

/// Answers everything with who asked, and a file of a megabyte.
fn nginx(hub: &Pod, folder: &Path) -> Process {
    fs::write(folder.join("large"), vec![b'x'; 1 << 20]).unwrap();
    let folder = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
user root;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 10.97.0.5:8080; listen 10.96.0.14:81;
    location / {{ return 200 \"from $remote_addr over connection $connection, $request_method $http_x_forwarded_for\\n\"; }}
    location /large {{ root {folder}; }}
  }}
}}
"
    );
    let file = format!("{folder}/nginx.conf");
    fs::write(&file, config).unwrap();
    let mut nginx = command(&hub.netns, &hub.cgroup, Path::new("nginx"));
    nginx.args(["-c", &file, "-e", &format!("{folder}/nginx.log")]);
    Process::start("nginx", nginx, Path::new(&folder.to_string()))
}

/// What curl in a pod gets, with its own words about status and connections.
fn curl(pod: &Pod, arguments: &[&str]) -> String {
    let mut curl = command(&pod.netns, &pod.cgroup, Path::new("curl"));
    let words = "%{http_code} %{num_connects} %{remote_ip} %{size_download}\\n";
    curl.args(["-sS", "--max-time", "10", "-w", words]);
    let output = curl
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn one_server_with_a_port_at_l7_and_one_that_the_proxy_never_sees() {
    let Some(mesh) = Mesh::new() else { return };
    if Command::new("nginx")
        .arg("-v")
        .stderr(Stdio::null())
        .status()
        .is_err()
    {
        panic!("nginx is not installed; conformance/setup.sh does it");
    }
    mesh.lab.address("10.96.0.14");
    mesh.lab.address("10.97.0.5");
    let folder = tempfile::tempdir().unwrap();
    let _nginx = nginx(&mesh.lab.hub(), folder.path());
    let yaml = fs::read_to_string(mesh.path("mesh.yaml")).unwrap();
    mesh.configure(&format!("{yaml}{SHOP}"));
    let agent = mesh.agent();
    let pod = &mesh.client;
    until("nginx answers", DEADLINE, || {
        curl(pod, &["http://10.96.0.14:81/"]).contains("200")
    });

    // Two requests over one connection of curl's; nginx sees the pod.
    let url = "http://10.96.0.14/";
    let text = curl(pod, &[url, url]);
    let rows: Vec<&str> = text.lines().collect();
    let from = format!("from {} over", pod.address);
    assert!(
        rows[0].starts_with(&from) && rows[2].starts_with(&from),
        "{text}"
    );
    assert!(rows[1].starts_with("200 1 10.96.0.14 "), "{text}");
    assert!(rows[3].starts_with("200 0 10.96.0.14 "), "{text}");
    let text = curl(pod, &["-o", "/dev/null", "http://10.96.0.14/large"]);
    assert_eq!(text, "200 1 10.96.0.14 1048576\n");
    let text = curl(pod, &["-X", "DELETE", url]);
    assert!(text.starts_with("404 1 "), "no route: {text}");
    assert!(!text.contains("from "), "nginx was not asked: {text}");

    // The other port of the same server: no policy, no proxy, no line in the log.
    let steered = mesh.status().counters.steered;
    let text = curl(pod, &["-X", "DELETE", "http://10.96.0.14:81/"]);
    assert!(text.starts_with(&from) && text.contains("DELETE"), "{text}");
    assert_eq!(mesh.status().counters.steered, steered);
    curl(pod, &[url]);
    // Lines come in order, so that one more steered request tells what was logged before it.
    until("the last request is logged", DEADLINE, || {
        log_lines(&agent).len() >= 5
    });
    let methods: Vec<_> = log_lines(&agent)
        .iter()
        .map(|line| line["method"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(methods, ["GET", "GET", "GET", "DELETE", "GET"]);
}
