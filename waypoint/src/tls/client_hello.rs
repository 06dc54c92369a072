//! What a client's first bytes say of the server it wants: the server name of a TLS ClientHello, read by
//! rustls. Nothing is answered, and nothing is decrypted.

use cairn_routing::ServerName;
use rustls::server::Acceptor;

/// Takes the first bytes of a connection, in pieces of any size, until it is known what they say.
#[derive(Default)]
pub struct ClientHello {
    acceptor: Acceptor,
}

impl ClientHello {
    /// Takes the next bytes. `None`: more are needed. Not to be called again after an answer.
    pub fn take(&mut self, mut bytes: &[u8]) -> Option<ServerName> {
        while !bytes.is_empty() {
            // It reads from memory: an error says that it has no room for more, which no hello needs.
            match self.acceptor.read_tls(&mut bytes) {
                Ok(read) if read > 0 => {}
                Ok(_) | Err(_) => return Some(ServerName::NotTls),
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    return Some(match hello.server_name() {
                        Some(name) => ServerName::Named(name.to_ascii_lowercase().into()),
                        None => ServerName::Absent,
                    });
                }
                // No TLS, or a hello that no server would take.
                Err(_) => return Some(ServerName::NotTls),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName as Name;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// The ClientHello that rustls sends to a server.
    fn hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
        let name = Name::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn named(name: &str) -> Option<ServerName> {
        Some(ServerName::Named(name.into()))
    }

    #[test]
    fn the_server_name_is_read_in_lower_case() {
        assert_eq!(
            ClientHello::default().take(&hello("Web.Example.COM")),
            named("web.example.com")
        );
    }

    #[test]
    fn an_address_is_no_server_name() {
        // RFC 6066: a literal address is not sent at all.
        let found = ClientHello::default().take(&hello("192.0.2.1"));
        assert_eq!(found, Some(ServerName::Absent));
    }

    #[test]
    fn what_is_no_tls_is_told_from_its_first_bytes() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"SSH-2.0-OpenSSH_9.6\r\n",
            &[0; 64],
            // A record of TLS that holds no handshake.
            b"\x17\x03\x03\x00\x05hello",
        ] {
            let found = ClientHello::default().take(bytes);
            assert_eq!(found, Some(ServerName::NotTls), "{bytes:?}");
        }
    }

    #[test]
    fn a_hello_that_never_ends_is_no_hello() {
        // Handshake records that announce 16 MB, full of zeros.
        let mut endless = ClientHello::default();
        let mut record = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff".to_vec();
        record.resize(5 + 0x4000, 0);
        let mut found = endless.take(&record);
        let mut more = b"\x16\x03\x01\x40\x00".to_vec();
        more.resize(5 + 0x4000, 0);
        for _ in 0..8 {
            if found.is_some() {
                break;
            }
            found = endless.take(&more);
        }
        assert_eq!(found, Some(ServerName::NotTls));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_hello_is_cut(cuts in prop::collection::vec(1_usize..80, 0..40)) {
            let bytes = hello("shop.example");
            let mut reader = ClientHello::default();
            let (mut rest, mut found) = (&bytes[..], None);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                prop_assert!(found.is_none() || rest.is_empty());
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                rest = more;
                if found.is_none() {
                    found = reader.take(piece);
                }
            }
            prop_assert_eq!(found, named("shop.example"));
        }

        #[test]
        fn no_bytes_make_it_panic_or_find_a_name(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let found = ClientHello::default().take(&bytes);
            prop_assert!(!matches!(found, Some(ServerName::Named(_))), "{found:?}");
        }

        #[test]
        fn a_damaged_hello_gives_a_legal_name_or_none(at in 0_usize..200, byte in any::<u8>()) {
            let mut bytes = hello("shop.example");
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Some(ServerName::Named(name)) = ClientHello::default().take(&bytes) {
                let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-._".contains(&c);
                prop_assert!(name.bytes().all(legal), "{name}");
            }
        }
    }
}
