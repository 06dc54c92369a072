//! Profiles of the running waypoint (issue 6 item 8), read by pprof itself where Go is installed.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_conformance::app::App;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::lab::{Lab, Port, Reach};

/// What `go tool pprof -top` says; `None` where there is no Go.
fn top(profile: &Path, sample: &str) -> Option<String> {
    let mut pprof = Command::new("go");
    // Small shares, too.
    pprof.args(["tool", "pprof", "-top", "-nodefraction=0"]);
    pprof.arg(format!("-sample_index={sample}"));
    let output = pprof.arg(profile).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{wrong}");
    Some(said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pprof_reads_where_time_goes_and_who_holds_memory() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let _app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let admin = lab.cairn().admin;
    let address = client.to("web", 80);
    // Busy for as long as the profile takes.
    let busy = tokio::spawn(async move {
        let mut connection = Connection::http1(address).await;
        while connection.get("/").await.is_ok() {}
    });
    // One after the other, until the asker below was sent away by one of them: it may itself be first, or late.
    let sent_away = Arc::new(AtomicBool::new(false));
    let is_done = sent_away.clone();
    let taken = tokio::spawn(async move {
        loop {
            let path = "/debug/pprof/profile?seconds=2";
            let answer = client::get_as("localhost", admin, path).await;
            if answer.status() != 409 && is_done.load(Ordering::Relaxed) {
                return answer;
            }
        }
    });
    cairn_conformance::process::until("one profile at a time", async || {
        let second = client::get_as("localhost", admin, "/debug/pprof/profile?seconds=1").await;
        second.status() == 409
    })
    .await;
    sent_away.store(true, Ordering::Relaxed);
    let taken = taken.await.unwrap();
    busy.abort();
    let memory = client::get_as("localhost", admin, "/debug/pprof/heap").await;
    for (name, answer) in [("cpu", &taken), ("memory", &memory)] {
        assert_eq!(answer.status(), 200, "{name}");
        assert_eq!(answer.headers()["content-type"], "application/octet-stream");
        assert_eq!(answer.body()[..2], [0x1f, 0x8b], "{name} is compressed");
    }
    // With seconds it is a sample of who allocates, which traffic does.
    let address = client.to("web", 80);
    let busy = tokio::spawn(async move {
        let mut connection = Connection::http1(address).await;
        while connection.get("/").await.is_ok() {}
    });
    let path = "/debug/pprof/heap?seconds=2";
    let allocated = client::get_as("localhost", admin, path).await;
    busy.abort();
    assert_eq!(allocated.status(), 200);
    let wrong = client::get_as("localhost", admin, "/debug/pprof/profile?seconds=3600").await;
    assert_eq!(wrong.status(), 400);
    let elsewhere = client::get(lab.cairn().metrics, "/debug/pprof/heap").await;
    assert_eq!(
        elsewhere.status(),
        404,
        "for operators on this machine alone"
    );

    let file = |name: &str, body: &[u8]| {
        let path = lab.folder().join(name);
        std::fs::write(&path, body).unwrap();
        path
    };
    let cpu = file("cpu.pb.gz", taken.body());
    let Some(said) = top(&cpu, "cpu") else {
        return eprintln!("no Go here: pprof itself was not asked");
    };
    assert!(said.contains("Type: cpu"), "{said}");
    let samples = said.lines().filter(|line| line.contains('%')).count();
    assert!(samples > 5, "{said}");
    let memory = file("memory.pb.gz", memory.body());
    let said = top(&memory, "inuse_space").unwrap();
    for owner in ["(rest)", "program and files", "http"] {
        assert!(said.contains(owner), "{owner} in {said}");
    }
    let allocated = file("heap.pb.gz", allocated.body());
    for sample in ["alloc_space", "inuse_objects"] {
        let said = top(&allocated, sample).unwrap();
        assert!(said.contains(&format!("Type: {sample}")), "{said}");
        // Where requests are, and not on the way to the allocator.
        assert!(
            sample != "alloc_space" || said.contains("pingora"),
            "{said}"
        );
        assert!(!said.contains("cairn_allocator"), "{said}");
    }
}
