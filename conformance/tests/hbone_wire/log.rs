//! A log that nobody reads: stderr is a pipe that is full.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cairn_conformance::cairn::sum;
use cairn_conformance::client;
use cairn_conformance::hbone::Tunnel;
use cairn_conformance::net::free_address;
use cairn_conformance::process::until;
use cairn_conformance::workspace;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::mesh::{Mesh, WEB, read_until, status_of};

/// Killed by its id when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_full_stderr_holds_up_no_worker_and_what_is_dropped_is_counted() {
    let mesh = Mesh::start().await;
    let ip = mesh.cairn().hbone.ip();
    let [hbone, metrics, ready, admin] = [(); 4].map(|()| free_address(ip));
    let mut command = Command::new(workspace::cairn());
    command
        .args(["run", "--workers", "1", "--access-log", "off"])
        .arg("--config")
        .arg(mesh.lab.config())
        .arg("--identity-dir")
        .arg(mesh.lab.waypoint_identity())
        .args(["--hbone-addr", &hbone.to_string()])
        .args(["--metrics-addr", &metrics.to_string()])
        .args(["--ready-addr", &ready.to_string()])
        .args(["--admin-addr", &admin.to_string()])
        .env("CAIRN_LOG", "trace")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let _running = Running(command.spawn().expect("cairn starts"));
    until("cairn listens", async || {
        TcpStream::connect(hbone).await.is_ok()
    })
    .await;
    let exchange = async || {
        let tls = mesh.tls();
        let mut tunnel = Tunnel::connect(&tls, hbone, mesh.source)
            .await
            .expect("a tunnel");
        assert_eq!(status_of(tunnel.open("10.96.1.99:80").await), 400);
        let mut stream = tunnel.open(WEB).await.expect("a 200");
        let request = b"GET /status/204 HTTP/1.1\r\nhost: web.shop\r\n\r\n";
        stream.write_all(request).await.expect("a write");
        read_until(&mut stream, "\r\n\r\n").await
    };
    until("the log is full", async || {
        let answer = timeout(Duration::from_secs(20), exchange()).await;
        let answer = answer.expect("the worker answers nobody");
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer:?}");
        let page = client::text(&client::get(metrics, "/metrics").await);
        sum(&page, "cairn_log_dropped_total", &[]) > 0.0
    })
    .await;
}
