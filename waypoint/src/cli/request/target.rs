//! Whom `cairn request` asks for and what it names in the request, from URL and `--to`. Sends nothing.

use anyhow::bail;

use super::Args;

/// What is asked for, and what is sent.
pub(super) struct Target {
    /// For CONNECT.
    pub(super) authority: String,
    /// Host or `:authority`, unless a header says otherwise.
    pub(super) host: String,
    /// Path and query.
    pub(super) path: String,
}

impl Target {
    pub(super) fn of(args: &Args) -> anyhow::Result<Self> {
        let (host, path) = match args.url.split_once("://") {
            Some(("http", rest)) => {
                let cut = rest.find(['/', '?']).unwrap_or(rest.len());
                let (host, path) = rest.split_at(cut);
                (Some(host), if path.is_empty() { "/" } else { path })
            }
            Some((scheme, _)) => {
                bail!("{scheme}:// is not understood: inside the tunnel it is http://")
            }
            None if args.url.starts_with('/') || args.url == "*" => (None, args.url.as_str()),
            None => bail!("{} is neither a path nor a URL with http://", args.url),
        };
        let Some(authority) = args.to.clone().or_else(|| host.map(with_port)) else {
            bail!("--to HOST:PORT is needed, for the URL has no host");
        };
        let host = host.unwrap_or(&authority);
        Ok(Self {
            host: host.strip_suffix(":80").unwrap_or(host).to_owned(),
            path: if path.starts_with('?') {
                format!("/{path}")
            } else {
                path.to_owned()
            },
            authority,
        })
    }
}

fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
        !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) && !name.ends_with(':')
    });
    if has_port {
        host.to_owned()
    } else {
        format!("{host}:80")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clap::Parser;
    use http::header::HOST;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// CONNECT authority and what the request line and Host become.
    fn sent(line: &[&str]) -> Result<String, String> {
        let always = ["request", "--via", "127.0.0.1:1", "--identity-dir", "x"];
        let args = Line::parse_from(always.iter().chain(line)).args;
        let target = Target::of(&args).map_err(|e| e.to_string())?;
        let request = args
            .request(&target, Bytes::new())
            .map_err(|e| e.to_string())?;
        let host = request
            .headers()
            .get(HOST)
            .map_or("-", |h| h.to_str().unwrap());
        Ok(format!(
            "{} | {} {} {host}",
            target.authority,
            request.method(),
            request.uri()
        ))
    }

    #[test]
    fn path_goes_to_the_destination() {
        let to = "10.96.1.1:80";
        assert_eq!(
            sent(&["--to", to, "/a?b=c"]).unwrap(),
            "10.96.1.1:80 | GET /a?b=c 10.96.1.1"
        );
        assert_eq!(
            sent(&["--to", to]).unwrap(),
            "10.96.1.1:80 | GET / 10.96.1.1"
        );
    }

    #[test]
    fn url_names_the_destination_unless_there_is_another() {
        assert_eq!(
            sent(&["http://web.shop/a"]).unwrap(),
            "web.shop:80 | GET /a web.shop"
        );
        assert_eq!(
            sent(&["http://web:8080"]).unwrap(),
            "web:8080 | GET / web:8080"
        );
        let to = ["--to", "10.96.1.1:81", "http://web/a"];
        assert_eq!(sent(&to).unwrap(), "10.96.1.1:81 | GET /a web");
        assert_eq!(
            sent(&["http://[fd00::1]:80/"]).unwrap(),
            "[fd00::1]:80 | GET / [fd00::1]"
        );
        assert!(sent(&["/a"]).unwrap_err().contains("--to"));
        assert!(sent(&["https://web/"]).unwrap_err().contains("http://"));
    }

    #[test]
    fn path_is_sent_as_it_is_written() {
        let to = "10.96.1.1:80";
        for path in ["//a/../b/./c", "/a%2Fb", "/..;/admin"] {
            let expected = format!("10.96.1.1:80 | GET {path} 10.96.1.1");
            assert_eq!(sent(&["--to", to, path]).unwrap(), expected);
        }
    }

    #[test]
    fn http2_has_an_authority_and_no_host() {
        let line = ["--to", "10.96.1.1:80", "--http2", "-H", "Host: web", "/a"];
        assert_eq!(sent(&line).unwrap(), "10.96.1.1:80 | GET http://web/a -");
    }

    #[test]
    fn data_makes_it_a_post() {
        let line = ["--to", "10.96.1.1:80", "-d", "x=1", "/a"];
        assert_eq!(sent(&line).unwrap(), "10.96.1.1:80 | POST /a 10.96.1.1");
    }
}
