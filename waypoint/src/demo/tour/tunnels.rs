//! What a CONNECT may ask for: TCP by policy, and nothing that is not declared; and who may open a
//! tunnel at all.

use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{DB, Tour, WEB};
use crate::client::ClientError;

impl Tour<'_> {
    pub(super) async fn tcp(&mut self) -> anyhow::Result<()> {
        let expected = "the database speaks first, then echoes";
        let (got, ok) = match self.frontend.open(DB).await {
            Ok(stream) => {
                let mut stream = BufReader::new(stream);
                let mut greeting = String::new();
                stream.read_line(&mut greeting).await?;
                stream.write_all(b"select 1\n").await?;
                stream.shutdown().await?;
                let mut echo = String::new();
                stream.read_to_string(&mut echo).await?;
                let ok = greeting == "db\n" && echo == "select 1\n";
                (format!("`{}`, then `{}`", greeting.trim(), echo.trim()), ok)
            }
            Err(error) => (error.to_string(), false),
        };
        self.tell("shop/frontend TCP to db:5432", expected, got, ok);

        let (got, ok) = match self.visitor.open(DB).await {
            Err(ClientError::Refused { status, .. }) => {
                let log = self
                    .log
                    .line("tunnel_authority", DB)
                    .await
                    .unwrap_or_default();
                // The line of the allowed stream may come first.
                let log = match log.get("verdict").and_then(Value::as_str) {
                    Some("deny") => log,
                    _ => self
                        .log
                        .line("tunnel_authority", DB)
                        .await
                        .unwrap_or_default(),
                };
                let reason = log
                    .get("reason")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                (
                    format!("CONNECT {}: {reason}", status.as_u16()),
                    status == StatusCode::UNAUTHORIZED,
                )
            }
            Err(error) => (error.to_string(), false),
            Ok(_) => ("a stream".to_owned(), false),
        };
        self.tell(
            "guest/visitor TCP to db:5432",
            "refused at CONNECT with 401",
            got,
            ok,
        );
        Ok(())
    }

    pub(super) async fn strangers(&mut self) -> anyhow::Result<()> {
        for (to, what) in [
            ("10.96.0.99:80", "an address nobody declared"),
            ("127.0.0.1:22", "loopback"),
        ] {
            let (got, ok) = match self.frontend.open(to).await {
                Err(ClientError::Refused { status, .. }) => (
                    format!("CONNECT {}", status.as_u16()),
                    status == StatusCode::BAD_REQUEST,
                ),
                Err(error) => (error.to_string(), false),
                Ok(_) => ("a stream".to_owned(), false),
            };
            let sent = format!("shop/frontend CONNECT {to}");
            self.tell(&sent, &format!("400: {what}"), got, ok);
        }
        let (got, ok) = match self.lab.stranger(WEB).await? {
            Err(error @ (ClientError::Tls { .. } | ClientError::Tunnel(_))) => {
                (format!("no tunnel: {error}"), true)
            }
            Err(error) => (error.to_string(), false),
            Ok(()) => ("a stream".to_owned(), false),
        };
        let sent = "certificate of trust domain elsewhere.example";
        self.tell(sent, "no tunnel", got, ok);
        Ok(())
    }
}
