//! The authority of a CONNECT, and Host: what is read, is read in one way.

use std::net::IpAddr;

use cairn_filters::authority::{host_without_port, validate};
use cairn_filters::connect::Asked;

/// The bytes as an authority.
pub fn authority(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Asked::parse(text) {
        None => {}
        Some(Asked::Address(address)) => {
            assert_ne!(address.port(), 0, "{text:?}");
            assert_eq!(address.ip(), address.ip().to_canonical(), "{text:?}");
            let again = Asked::parse(&address.to_string());
            assert_eq!(again, Some(Asked::Address(address)), "{text:?}");
        }
        Some(Asked::Hostname(host, port)) => {
            assert_ne!(port, 0, "{text:?}");
            assert!(host.parse::<IpAddr>().is_err(), "{text:?} is an address");
            assert_eq!(host, host.to_ascii_lowercase(), "{text:?}");
            let odd = |c: char| !c.is_ascii_alphanumeric() && !".-_".contains(c);
            assert!(!host.contains(odd) && !host.ends_with('.'), "{text:?}");
            let again = Asked::parse(&format!("{host}:{port}"));
            assert_eq!(again, Some(Asked::Hostname(host, port)), "{text:?}");
        }
    }
    if validate(text).is_ok() {
        let odd = |c: char| c.is_ascii_control() || " @/?#\\%,".contains(c);
        assert!(!text.contains(odd), "{text:?} is no authority");
        assert!(text.starts_with(host_without_port(text)), "{text:?}");
    }
}
