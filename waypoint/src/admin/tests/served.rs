//! The addresses over sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::super::{Addresses, Server};
use super::state;

fn get(address: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_three_addresses_are_served_until_the_server_is_dropped() {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let addresses = Addresses {
        metrics: free,
        ready: free,
        admin: free,
    };
    let server = Server::start(addresses, state()).unwrap();
    let bound = server.addresses();
    assert!(get(bound.metrics, "/stats/prometheus").starts_with("HTTP/1.1 200 OK"));
    assert!(get(bound.ready, "/healthz/ready").starts_with("HTTP/1.1 503 "));
    assert!(get(bound.admin, "/config_dump").contains("\"snapshot\": 4"));

    let taken = Server::start(
        Addresses {
            metrics: free,
            ready: bound.ready,
            admin: free,
        },
        state(),
    );
    let error = taken.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("readiness address {}", bound.ready)),
        "{error}"
    );

    drop(server);
    assert!(TcpStream::connect(bound.ready).is_err());
}
