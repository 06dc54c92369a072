//! A headless Chromium with one page, asked over its DevTools protocol. Knows no page of ours.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client;
use crate::process::Process;

/// The program, of Debian's package `chromium`.
const PROGRAM: &str = "chromium";

/// A browser.
pub struct Browser {
    socket: WebSocketStream<TcpStream>,
    next: u64,
    _process: Process,
}

impl Browser {
    /// Starts one with a window of this size; its profile and log are in `folder`.
    pub async fn start(folder: &Path, width: u32, height: u32) -> Self {
        let mut command = Command::new(PROGRAM);
        command
            .args(["--headless=new", "--remote-debugging-port=0"])
            // There is no sandbox for root, and nothing is shown but our own page.
            .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking"])
            .arg(format!("--window-size={width},{height}"))
            .arg(format!(
                "--user-data-dir={}",
                folder.join("profile").display()
            ))
            .arg("about:blank");
        let mut process = Process::start("chromium", command, folder);
        let port = folder.join("profile/DevToolsActivePort");
        let read = || {
            let text = std::fs::read_to_string(&port).unwrap_or_default();
            text.lines().next().and_then(|line| line.parse().ok())
        };
        let mut address = None;
        process
            .until("chromium listens", async || {
                address = read().map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)));
                address.is_some()
            })
            .await;
        let address = address.expect("an address");
        let mut path = String::new();
        process
            .until("chromium has a page", async || {
                let pages = client::get_as("localhost", address, "/json/list").await;
                let pages: Value = serde_json::from_slice(pages.body()).unwrap_or_default();
                let pages = pages.as_array().cloned().unwrap_or_default();
                let page = pages.iter().find(|page| page["type"] == "page");
                let url = page.and_then(|page| page["webSocketDebuggerUrl"].as_str());
                path = url
                    .and_then(|url| url.find("/devtools").map(|at| url[at..].to_owned()))
                    .unwrap_or_default();
                !path.is_empty()
            })
            .await;
        let stream = TcpStream::connect(address).await.expect("chromium");
        let (socket, _) = tokio_tungstenite::client_async(format!("ws://{address}{path}"), stream)
            .await
            .expect("a WebSocket");
        Self {
            socket,
            next: 0,
            _process: process,
        }
    }

    /// Opens a page.
    pub async fn open(&mut self, url: &str) {
        self.call("Page.enable", json!({})).await;
        self.call("Page.navigate", json!({"url": url})).await;
        // The old document is there until the new one begins.
        let here = json!(url.split('#').next());
        let loaded =
            format!("document.readyState === 'complete' && location.href.startsWith({here})");
        self.until(&loaded).await;
    }

    /// The value of an expression; promises are awaited.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", asked).await;
        let exception = &answer["exceptionDetails"];
        assert!(exception.is_null(), "{expression}: {exception}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression holds; returns how long that took.
    pub async fn until(&mut self, expression: &str) -> std::time::Duration {
        let began = std::time::Instant::now();
        let wait = format!(
            "new Promise((done, fail) => {{
                const end = Date.now() + 30000;
                const look = () => {{
                    let holds = false;
                    try {{ holds = {expression}; }} catch {{}}
                    if (holds) done(true);
                    else if (Date.now() > end) fail(new Error('not in time'));
                    else setTimeout(look, 20);
                }};
                look();
            }})"
        );
        self.eval(&wait).await;
        began.elapsed()
    }

    /// Makes the window another size.
    pub async fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// The page as PNG.
    pub async fn screenshot(&mut self) -> Vec<u8> {
        let answer = self
            .call("Page.captureScreenshot", json!({"format": "png"}))
            .await;
        let data = answer["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD
            .decode(data)
            .expect("base64")
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let message = json!({"id": self.next, "method": method, "params": params});
        let message = Message::text(message.to_string());
        self.socket.send(message).await.expect("chromium is there");
        loop {
            let message = self
                .socket
                .next()
                .await
                .expect("an answer")
                .expect("an answer");
            let Message::Text(text) = message else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(text.as_str()).expect("JSON");
            if answer["id"] == self.next {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }
}
