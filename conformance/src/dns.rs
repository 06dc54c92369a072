//! A small DNS server over UDP and TCP, whose answers a test changes as it goes.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::{BinDecodable, BinEncodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// The longest answer over UDP; a longer one is cut, and asked for again over TCP.
const UDP_BYTES_MAX: usize = 1_232;

/// What is answered for a name.
#[derive(Clone, Debug)]
pub enum Says {
    /// These addresses, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// NXDOMAIN.
    Unknown,
    /// SERVFAIL.
    Failure,
}

/// A DNS server of one process.
#[derive(Clone, Debug)]
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

#[derive(Debug, Default)]
struct Zone {
    names: HashMap<String, Says>,
    asked: HashMap<String, u64>,
}

impl Dns {
    /// Starts one on an address.
    pub async fn start(ip: IpAddr) -> Self {
        let tcp = TcpListener::bind((ip, 0)).await.expect("a port");
        let address = tcp.local_addr().expect("an address");
        let udp = UdpSocket::bind(address).await.expect("the same port");
        let zone = Arc::<Mutex<Zone>>::default();
        tokio::spawn(serve_udp(udp, zone.clone()));
        let of_tcp = zone.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                tokio::spawn(serve_tcp(stream, of_tcp.clone()));
            }
        });
        Self { address, zone }
    }

    /// What it answers for a name from now on. All other names are unknown.
    pub fn says(&self, name: &str, says: Says) {
        let mut zone = self.zone.lock().expect("no panic while held");
        zone.names.insert(name.to_owned(), says);
    }

    /// Addresses for a name, good for a second.
    pub fn leads(&self, name: &str, addresses: &[IpAddr]) {
        self.says(name, Says::Addresses(addresses.to_vec(), 1));
    }

    /// How often it was asked for a name.
    pub fn asked(&self, name: &str) -> u64 {
        let zone = self.zone.lock().expect("no panic while held");
        zone.asked.get(name).copied().unwrap_or_default()
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4_096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if let Some(answer) = answer(&buffer[..length], &zone, UDP_BYTES_MAX) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(mut stream: TcpStream, zone: Arc<Mutex<Zone>>) -> io::Result<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        let Some(answer) = answer(&question, &zone, usize::from(u16::MAX)) else {
            return Ok(());
        };
        stream
            .write_u16(answer.len().try_into().map_err(io::Error::other)?)
            .await?;
        stream.write_all(&answer).await?;
    }
}

fn answer(question: &[u8], zone: &Mutex<Zone>, bytes_max: usize) -> Option<Vec<u8>> {
    let question = Message::from_bytes(question).ok()?;
    let query = question.queries.first()?.clone();
    let name = query
        .name()
        .to_ascii()
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let says = {
        let mut zone = zone.lock().expect("no panic while held");
        *zone.asked.entry(name.clone()).or_default() += 1;
        zone.names.get(&name).cloned()
    };
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match says {
        Some(Says::Addresses(addresses, ttl)) => {
            for address in addresses {
                let data = match (address, query.query_type()) {
                    (IpAddr::V4(v4), RecordType::A) => RData::A(v4.into()),
                    (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(v6.into()),
                    _ => continue,
                };
                answer.add_answer(Record::from_rdata(query.name().clone(), ttl, data));
            }
        }
        Some(Says::Failure) => answer.metadata.response_code = ResponseCode::ServFail,
        Some(Says::Unknown) | None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    let bytes = answer.to_bytes().ok()?;
    if bytes.len() <= bytes_max {
        return Some(bytes);
    }
    answer.answers.clear();
    answer.metadata.truncation = true;
    answer.to_bytes().ok()
}
