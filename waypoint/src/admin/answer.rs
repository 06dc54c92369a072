//! What each path of each address answers. Knows no sockets.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use http::header::{ALLOW, CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

use super::server::Surface;
use super::state::AdminState;
use super::{clusters, config_dump, limits, page, profile};
use crate::memory;
use crate::telemetry::exposition::{self, Exposition};

/// What an answer may take and leave no memory behind that would be worth giving back.
const SMALL_ANSWER_BYTES: usize = 1024 * 1024;

/// The body of an answer.
pub type Body = BoxBody<Bytes, Infallible>;

/// One path.
struct Page {
    paths: &'static [&'static str],
    surfaces: &'static [Surface],
    /// Changes something, so POST only.
    acts: bool,
    help: &'static str,
    answer: How,
}

/// How a page is made.
enum How {
    /// At once, on the thread of all pages.
    Now(fn(&Asked<'_>) -> Response<Body>),
    /// Perhaps on a thread of its own.
    Later(fn(&Asked<'_>) -> Answered),
}

use How::{Later, Now};

/// An answer, or what ends in one; dropped, it is not needed any more.
pub enum Answered {
    /// The answer.
    Now(Response<Body>),
    /// It takes a while.
    Later(BoxFuture<'static, Response<Body>>),
}

impl Answered {
    /// The answer, whenever it is there.
    pub async fn response(self) -> Response<Body> {
        match self {
            Self::Now(response) => response,
            Self::Later(working) => working.await,
        }
    }
}

/// What is asked, of whom.
struct Asked<'a> {
    state: &'a Arc<AdminState>,
    surface: Surface,
    query: &'a str,
}

const EVERYWHERE: &[Surface] = &[Surface::Metrics, Surface::Ready, Surface::Admin];

static PAGES: [Page; 17] = [
    Page {
        paths: &["/metrics", "/stats/prometheus"],
        surfaces: &[Surface::Metrics, Surface::Admin],
        acts: false,
        help: "metrics in the Prometheus text format",
        answer: Now(metrics),
    },
    Page {
        paths: &["/healthz/ready"],
        surfaces: EVERYWHERE,
        acts: false,
        help: "200 when ready, else 503 and the reasons",
        answer: Now(ready),
    },
    Page {
        paths: &["/acknowledged"],
        surfaces: EVERYWHERE,
        acts: false,
        help: "which generation of each object is in force, as JSON; 503 before the first",
        answer: Now(acknowledged),
    },
    Page {
        paths: &["/config_dump"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "the configuration in force, its diagnostics and the last reload, as JSON",
        answer: Now(|asked| json(config_dump::render(asked.state))),
    },
    Page {
        paths: &["/clusters"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "endpoints of every service port with their active requests, as JSON",
        answer: Now(|asked| json(clusters::render(asked.state))),
    },
    Page {
        paths: &["/logging"],
        surfaces: &[Surface::Admin],
        acts: true,
        help: "?level=FILTER sets the filter of the log on stderr: info, debug, cairn=debug,h2=warn",
        answer: Now(logging),
    },
    Page {
        paths: &["/debug/pprof/profile"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "?seconds=N where the process spends its time, for `go tool pprof`; one at a time",
        answer: Later(|asked| profile::cpu(asked.query)),
    },
    Page {
        paths: &["/debug/pprof/heap"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "who holds memory, as far as it is counted, for `go tool pprof`; with ?seconds=N who allocates in that time",
        answer: Later(|asked| profile::heap(asked.query, asked.state)),
    },
    Page {
        paths: &["/quitquitquit"],
        surfaces: &[Surface::Admin],
        acts: true,
        help: "drains and exits, as SIGTERM does",
        answer: Now(quit),
    },
    Page {
        paths: &["/"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "a page to look at: live flows, a map, routes, policies, explain, diagnostics",
        answer: Now(|_| page::index()),
    },
    Page {
        paths: &["/page.css"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "part of the page",
        answer: Now(|_| page::style()),
    },
    Page {
        paths: &["/page.js"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "part of the page",
        answer: Now(|_| page::script()),
    },
    Page {
        paths: &["/map.js"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "part of the page",
        answer: Now(|_| page::map_script()),
    },
    Page {
        paths: &["/api/flows"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "?after=PLACE&pod=...&verdict=... flow records, by the filters of `cairn observe`, as JSON",
        answer: Now(|asked| json_or_why(page::flows(asked.state, asked.query))),
    },
    Page {
        paths: &["/api/map"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "who asked which service over the last minute, with rates, errors and latencies, as JSON",
        answer: Now(|asked| json(page::map(asked.state))),
    },
    Page {
        paths: &["/api/explain"],
        surfaces: &[Surface::Admin],
        acts: false,
        help: "?from=ID&to=HOST:PORT&method=M&path=P&header=NAME: VALUE what would become of a request, as JSON",
        answer: Now(|asked| json_or_why(page::explain(asked.state, asked.query))),
    },
    Page {
        paths: &["/help", "/"],
        surfaces: EVERYWHERE,
        acts: false,
        help: "this list",
        answer: Now(|asked| text(StatusCode::OK, index(asked.surface))),
    },
];

/// Answers a request that came in at `surface`; `loopback`: from this machine.
pub fn answer<B>(
    request: &Request<B>,
    surface: Surface,
    loopback: bool,
    state: &Arc<AdminState>,
) -> Answered {
    match page(request, surface, loopback) {
        Err(refused) => Answered::Now(*refused),
        Ok(page) => {
            let query = request.uri().query().unwrap_or_default();
            let asked = Asked {
                state,
                surface,
                query,
            };
            match page.answer {
                Now(answer) => Answered::Now(answer(&asked)),
                Later(answer) => answer(&asked),
            }
        }
    }
}

/// The page that is asked for, or why there is none for who asks.
fn page<B>(
    request: &Request<B>,
    surface: Surface,
    loopback: bool,
) -> Result<&'static Page, Box<Response<Body>>> {
    if surface == Surface::Admin && !is_for_us(request) {
        let why =
            "only for localhost and addresses as Host: another name may be a web page's trick\n";
        return Err(Box::new(text(
            StatusCode::MISDIRECTED_REQUEST,
            why.to_owned(),
        )));
    }
    let path = request.uri().path();
    let page = PAGES
        .iter()
        .find(|p| p.paths.contains(&path) && p.surfaces.contains(&surface));
    let Some(page) = page else {
        let served = index(surface);
        let why = format!("no such page; there are:\n{served}");
        return Err(Box::new(text(StatusCode::NOT_FOUND, why)));
    };
    let allowed: &[Method] = if page.acts {
        &[Method::POST]
    } else {
        &[Method::GET, Method::HEAD]
    };
    if !allowed.contains(request.method()) {
        let allow = if page.acts { "POST" } else { "GET, HEAD" };
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("only {allow} here\n"),
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static(allow));
        return Err(Box::new(response));
    }
    // The admin address may have been opened to others for its dumps, and a web page may make its
    // reader's browser post here: neither may act.
    if page.acts && (!loopback || request.headers().contains_key(ORIGIN)) {
        let why = "only for this machine, and not for web pages\n";
        return Err(Box::new(text(StatusCode::FORBIDDEN, why.to_owned())));
    }
    Ok(page)
}

/// All metrics there are.
pub fn scrape(state: &AdminState) -> Exposition {
    let pieces = Exposition::new(state.registry.clone());
    let pieces = pieces.with(state.jwks.families());
    let pieces = pieces.with(clusters::families(state));
    pieces.with(limits::families(state))
}

/// Whether the Host is `localhost` or an address. A web page can give its own name this machine's address
/// (DNS rebinding), and would be let to read everything here by its reader's browser.
fn is_for_us<B>(request: &Request<B>) -> bool {
    // Programs may leave it out; browsers do not.
    let Some(host) = request.headers().get(HOST) else {
        return true;
    };
    let host = host
        .to_str()
        .ok()
        .and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| {
        let name = host.host();
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        name.eq_ignore_ascii_case("localhost") || bare.unwrap_or(name).parse::<IpAddr>().is_ok()
    })
}

fn metrics(asked: &Asked<'_>) -> Response<Body> {
    let pieces = scrape(asked.state);
    let frames = stream::iter(pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    let body = BodyExt::boxed(StreamBody::new(frames));
    typed(StatusCode::OK, exposition::CONTENT_TYPE, body)
}

fn ready(asked: &Asked<'_>) -> Response<Body> {
    let reasons = asked.state.readiness.told();
    if reasons.is_empty() {
        return text(StatusCode::OK, "ready\n".to_owned());
    }
    let mut page = String::from("not ready:\n");
    for reason in reasons {
        // Writing to a String can not fail.
        let _ = writeln!(page, "{reason}");
    }
    text(StatusCode::SERVICE_UNAVAILABLE, page)
}

fn acknowledged(asked: &Asked<'_>) -> Response<Body> {
    match &*asked.state.acknowledged.load() {
        Some(acknowledged) => json(acknowledged.render()),
        None => {
            let why = "no configuration yet\n".to_owned();
            text(StatusCode::SERVICE_UNAVAILABLE, why)
        }
    }
}

fn logging(asked: &Asked<'_>) -> Response<Body> {
    let Some(filter) = asked.query.strip_prefix("level=") else {
        return text(StatusCode::BAD_REQUEST, "say ?level=FILTER\n".to_owned());
    };
    match (asked.state.set_log_filter)(filter) {
        Ok(()) => text(StatusCode::OK, format!("log filter is now {filter}\n")),
        Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

fn quit(asked: &Asked<'_>) -> Response<Body> {
    (asked.state.quit)();
    text(StatusCode::OK, "draining\n".to_owned())
}

fn index(surface: Surface) -> String {
    let mut list = String::new();
    for page in PAGES.iter().filter(|p| p.surfaces.contains(&surface)) {
        let method = if page.acts { "POST" } else { "GET" };
        // Writing to a String can not fail.
        let _ = writeln!(
            list,
            "  {method:<4} {}: {}",
            page.paths.join(", "),
            page.help
        );
    }
    list
}

pub(super) fn text(status: StatusCode, text: String) -> Response<Body> {
    typed(
        status,
        "text/plain; charset=utf-8",
        Full::from(text).boxed(),
    )
}

fn json(rendered: Result<Vec<u8>, serde_json::Error>) -> Response<Body> {
    match rendered {
        Ok(rendered) => {
            if rendered.len() > SMALL_ANSWER_BYTES {
                memory::give_back_when_quiet();
            }
            let body = Full::from(rendered).boxed();
            typed(StatusCode::OK, "application/json", body)
        }
        Err(error) => {
            tracing::error!(%error, "an admin page could not be rendered; please report this");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("can not be rendered: {error}\n"),
            )
        }
    }
}

fn json_or_why(rendered: Result<Vec<u8>, String>) -> Response<Body> {
    match rendered {
        Ok(rendered) => json(Ok(rendered)),
        Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

pub(super) fn typed(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
