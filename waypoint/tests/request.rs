//! `cairn request` against a running waypoint: what it prints, and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed step is a failed test

use std::process::{Command, Output};

use cairn_waypoint::demo::{DB, Lab, WEB};

/// Runs `cairn request` as a workload of the lab, while the lab goes on.
async fn request(lab: &Lab, who: &str, line: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command
        .args(["request", "--via", &lab.waypoint.hbone_addr().to_string()])
        .arg("--identity-dir")
        .arg(lab.folder().join("pki").join(who))
        .args(line);
    let output = tokio::task::spawn_blocking(move || command.output());
    let Output {
        status,
        stdout,
        stderr,
    } = output.await.unwrap().expect("cairn runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test]
async fn an_answer_is_printed_and_any_status_is_one() {
    let lab = Lab::start().await.unwrap();
    let (code, out, _) = request(&lab, "shop/frontend", &["--to", WEB, "/items?x=1"]).await;
    assert_eq!(code, 0, "{out}");
    assert!(
        out.starts_with("web-v1\nGET /items?x=1 HTTP/1.1\n"),
        "{out}"
    );

    let (code, out, _) = request(
        &lab,
        "shop/frontend",
        &["-i", "--http2", "http://web.shop.svc.cluster.local/items"],
    )
    .await;
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("HTTP/2.0 200 OK\n"), "{out}");
    assert!(out.contains("host: web.shop.svc.cluster.local"), "{out}");

    let (code, out, _) = request(&lab, "guest/visitor", &["--to", WEB, "/items"]).await;
    assert_eq!((code, out.as_str()), (0, "RBAC: access denied"));
    let (code, ..) = request(&lab, "guest/visitor", &["--to", WEB, "--fail", "/items"]).await;
    assert_eq!(code, 22, "as curl --fail");
}

#[tokio::test]
async fn headers_and_body_are_sent_and_the_body_goes_to_a_file() {
    let lab = Lab::start().await.unwrap();
    let file = lab.folder().join("body");
    let line = [
        "--to",
        WEB,
        "-H",
        "x-color: blue",
        "-o",
        file.to_str().unwrap(),
        "/items",
    ];
    let (code, out, _) = request(&lab, "shop/frontend", &line).await;
    assert_eq!((code, out.as_str()), (0, ""));
    let body = std::fs::read_to_string(file).unwrap();
    assert!(body.contains("\nx-color: blue\n"), "{body}");

    // Denied, for the policy allows GET alone: the method was sent.
    let (_, out, told) = request(
        &lab,
        "shop/frontend",
        &["--to", WEB, "-v", "-d", "a=b", "/items"],
    )
    .await;
    assert_eq!(out, "RBAC: access denied");
    assert!(told.contains("> POST /items\n"), "{told}");
    assert!(told.contains("* tunnel to 127.0.0.1:"), "{told}");
    assert!(
        told.contains("which is spiffe://cluster.local/ns/shop/sa/waypoint\n"),
        "{told}"
    );
}

#[tokio::test]
async fn tcp_is_passed_and_repetitions_are_counted() {
    let lab = Lab::start().await.unwrap();
    let (code, out, _) =
        request(&lab, "shop/frontend", &["--to", DB, "--tcp", "-d", "hello"]).await;
    assert_eq!((code, out.as_str()), (0, "db\nhello"));
    let (code, out, _) = request(
        &lab,
        "shop/frontend",
        &["--to", WEB, "--repeat", "3", "/items"],
    )
    .await;
    assert_eq!((code, out.trim()), (0, "3 x 200 web-v1"));
}

#[tokio::test]
async fn no_answer_is_a_failure_that_says_why() {
    let lab = Lab::start().await.unwrap();
    let (code, _, told) = request(&lab, "guest/visitor", &["--to", DB, "--tcp"]).await;
    assert_eq!(code, 1);
    assert!(
        told.contains("CONNECT 10.96.0.20:5432 was refused with status 401"),
        "{told}"
    );

    let (code, _, told) = request(&lab, "shop/frontend", &["--to", "10.96.0.99:80"]).await;
    assert_eq!(code, 1);
    assert!(told.contains("refused with status 400"), "{told}");

    let server = "spiffe://cluster.local/ns/shop/sa/other";
    let line = ["--to", WEB, "--expect-server", server, "/items"];
    let (code, _, told) = request(&lab, "shop/frontend", &line).await;
    assert_eq!(code, 1);
    assert!(told.contains("ns/shop/sa/waypoint, expected"), "{told}");

    let (code, _, told) = request(&lab, "shop/nobody", &["--to", WEB, "/items"]).await;
    assert_eq!(code, 1);
    assert!(told.contains("cert-chain.pem"), "{told}");

    let (code, _, told) = request(&lab, "shop/frontend", &["/items"]).await;
    assert_eq!(code, 2, "wrong usage");
    assert!(told.contains("--to HOST:PORT is needed"), "{told}");
    let (code, ..) = request(&lab, "shop/frontend", &["--to", WEB, "-H", "no colon"]).await;
    assert_eq!(code, 2);
}
