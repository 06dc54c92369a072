//! What happens while the waypoint runs: an endpoint dies, policies are saved, well and badly.

use std::time::{Duration, Instant};

use anyhow::Context;
use http::{HeaderMap, Method};
use serde_json::Value;

use super::{Tour, WEB, Who};
use crate::demo::lab::POLICIES;

/// How many requests follow the death of an endpoint.
const REQUESTS_AFTER_DEATH: u32 = 20;

/// How long a saved change may take; the goal is 200 ms, for thousands of objects.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between looks whether a change is in force.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

impl Tour<'_> {
    pub(super) async fn death(&mut self) -> anyhow::Result<()> {
        self.lab.kill("web-v1-a");
        let mut http = self.frontend.http(WEB, false).await?;
        let (mut fine, mut retried) = (0, 0);
        for _ in 0..REQUESTS_AFTER_DEATH {
            let seen = self
                .ask_over(&mut http, Method::GET, "/items", HeaderMap::new())
                .await?;
            fine += u32::from(seen.status() == 200);
            let attempts = seen.log.get("attempts").and_then(Value::as_u64);
            retried += u32::from(attempts.unwrap_or_default() > 1);
        }
        self.lab.revive("web-v1-a").await?;
        let sent = format!(
            "one of two endpoints killed; shop/frontend {REQUESTS_AFTER_DEATH} x GET /items"
        );
        let got = format!("{fine} x 200, {retried} of them tried again elsewhere");
        let ok = fine == REQUESTS_AFTER_DEATH;
        self.tell(&sent, "no request lost", got, ok);
        Ok(())
    }

    pub(super) async fn reload(&mut self) -> anyhow::Result<()> {
        let opened = POLICIES.replacen("[shop/frontend]", "[shop/frontend, guest/visitor]", 1);
        let saved = Instant::now();
        self.lab.save_policies(&opened)?;
        let mut seen = self.get(Who::Visitor, "/items").await?;
        while seen.status() != 200 && saved.elapsed() < RELOAD_TIMEOUT {
            tokio::time::sleep(LOOK_INTERVAL).await;
            seen = self.get(Who::Visitor, "/items").await?;
        }
        let got = format!("{} after {} ms", seen.words(), saved.elapsed().as_millis());
        let sent = "policy readers saved with guest/visitor in it; guest/visitor GET /items";
        self.tell(
            sent,
            "200 as soon as it is in force",
            got,
            seen.status() == 200,
        );

        self.save_and_wait(&opened.replacen("rules:", "rulez:", 1))
            .await?;
        let kept = self.get(Who::Visitor, "/items").await?;
        let denied = self.get(Who::Frontend, "/admin").await?;
        let ok = kept.status() == 200 && denied.status() == 403;
        let got = format!(
            "GET /items {}, GET /admin {}",
            kept.status(),
            denied.status()
        );
        let sent = "policy readers saved with a typing error (`rulez:`)";
        self.tell(sent, "its last good version stays in force", got, ok);

        self.save_and_wait(POLICIES).await?;
        let seen = self.get(Who::Visitor, "/items").await?;
        let sent = "policies saved as they were; guest/visitor GET /items";
        self.tell(sent, "403 again", seen.words(), seen.status() == 403);
        Ok(())
    }

    async fn save_and_wait(&mut self, policies: &str) -> anyhow::Result<()> {
        let before = self.lab.version();
        self.lab.save_policies(policies)?;
        let in_force = async {
            while self.lab.version() == before {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::time::timeout(RELOAD_TIMEOUT, in_force)
            .await
            .context("the saved policies did not come into force")
    }
}
