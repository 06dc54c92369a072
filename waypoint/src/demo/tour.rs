//! The tour: what is sent, what should come, what comes. Each line goes over real sockets through the
//! real waypoint; the reasons it shows are those of the access log.

mod ask;
mod change;
mod policy;
mod routes;
mod tokens;
mod tunnels;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

use self::ask::{Seen, send};
use super::lab::{Client, Lab};
use super::log::Log;
use super::table::Line;
use crate::client::HttpClient;

/// Virtual IP and port of the service `web`.
pub const WEB: &str = "10.96.0.10:80";

/// Virtual IP and port of the service `db`.
pub const DB: &str = "10.96.0.20:5432";

/// Runs the tour and shows each line as it comes. Leaves the mesh as it was. `Ok(true)`: every line is
/// as expected.
///
/// # Errors
/// When the tour itself can not go on: the waypoint can not be reached, a file not be saved.
pub async fn tour(
    lab: &mut Lab,
    log: &mut Log,
    show: &mut (dyn FnMut(&Line) + Send),
) -> anyhow::Result<bool> {
    let mut tour = Tour {
        frontend: lab.client("shop", "frontend").await?,
        visitor: lab.client("guest", "visitor").await?,
        asked: 0,
        all_ok: true,
        lab,
        log,
        show,
    };
    tour.policy().await?;
    tour.tokens().await?;
    tour.paths().await?;
    tour.routes().await?;
    tour.tcp().await?;
    tour.strangers().await?;
    tour.death().await?;
    tour.reload().await?;
    Ok(tour.all_ok)
}

struct Tour<'a> {
    lab: &'a mut Lab,
    log: &'a mut Log,
    show: &'a mut (dyn FnMut(&Line) + Send),
    frontend: Client,
    visitor: Client,
    asked: u32,
    all_ok: bool,
}

/// Who asks.
#[derive(Clone, Copy)]
enum Who {
    Frontend,
    Visitor,
}

impl Tour<'_> {
    fn tell(&mut self, sent: &str, expected: &str, got: String, ok: bool) {
        self.all_ok &= ok;
        (self.show)(&Line {
            sent: sent.to_owned(),
            expected: expected.to_owned(),
            got,
            ok,
        });
    }

    fn client(&self, who: Who) -> &Client {
        match who {
            Who::Frontend => &self.frontend,
            Who::Visitor => &self.visitor,
        }
    }

    /// Sends one request to `web` over a stream of its own.
    async fn ask(
        &mut self,
        who: Who,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> anyhow::Result<Seen> {
        let grpc = headers.contains_key(CONTENT_TYPE);
        let mut http = self.client(who).http(WEB, grpc).await?;
        self.ask_over(&mut http, method, path, headers).await
    }

    async fn ask_over(
        &mut self,
        http: &mut HttpClient,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> anyhow::Result<Seen> {
        self.asked += 1;
        let id = format!("demo-{}", self.asked);
        let response = send(http, method, path, headers, &id).await?;
        let log = self.log.line("request_id", &id).await.unwrap_or_default();
        Ok(Seen { response, log })
    }

    async fn get(&mut self, who: Who, path: &str) -> anyhow::Result<Seen> {
        self.ask(who, Method::GET, path, HeaderMap::new()).await
    }
}
