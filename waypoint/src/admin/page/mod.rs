//! The page for people at the admin address: three files that are part of the program, and what they ask
//! for as JSON. Nothing is fetched from elsewhere and nothing is built. What is shown of configuration and
//! policies beyond this, the page takes from `/config_dump`, `/clusters` and `/metrics`.

mod explain;
mod flows;
mod map;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, Full};

use super::answer::Body;
pub use explain::explain;
pub use flows::flows;
pub use map::map;

/// The page may show what it gets from here, and nothing else: texts of clients stay texts.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page itself.
pub fn index() -> Response<Body> {
    file("text/html; charset=utf-8", include_str!("index.html"))
}

/// How it looks.
pub fn style() -> Response<Body> {
    file("text/css; charset=utf-8", include_str!("page.css"))
}

/// What it does.
pub fn script() -> Response<Body> {
    file("text/javascript; charset=utf-8", include_str!("page.js"))
}

/// How it draws the map.
pub fn map_script() -> Response<Body> {
    file("text/javascript; charset=utf-8", include_str!("map.js"))
}

fn file(content_type: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
    let headers: [(HeaderName, &'static str); 5] = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        // The next version has other files.
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
