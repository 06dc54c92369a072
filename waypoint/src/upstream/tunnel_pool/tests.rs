//! Who asks for a stream while a tunnel is dialled, and leaves.

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::Mesh;
use http::Response;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::pki::{Authority, write_identity};
use crate::tls::{Acceptor, IdentityFiles, IdentitySource};

/// A tunnel comes about within this, or the test fails.
const LIMIT: Duration = Duration::from_secs(20);

/// A pool, and the other end of its tunnels, which says nothing until it is told to.
struct Wire {
    pool: Arc<TunnelPool>,
    local: Arc<LocalIdentity>,
    there: Identity,
    listener: TcpListener,
    acceptor: Acceptor,
    _folder: tempfile::TempDir,
}

impl Wire {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::generate(Duration::from_secs(3_600)).unwrap();
        let issue = |account: &str| {
            let identity = Identity::of_workload("cluster.local", "shop", account).unwrap();
            let issued = authority.issue(&identity, Duration::from_secs(3_600));
            let dir = folder.path().join(account);
            write_identity(&dir, &issued.unwrap()).unwrap();
            (identity, IdentityFiles { dir })
        };
        let (_, waypoint) = issue("waypoint");
        let (there, web) = issue("web");
        let source = IdentitySource::load(&web).unwrap();
        let mesh = Arc::new(ArcSwap::from_pointee(Mesh::default()));
        let own_ports = Arc::from([]);
        Self {
            pool: Arc::new(TunnelPool::new(Arc::new(TcpDialer { own_ports }))),
            local: Arc::new(LocalIdentity::load(&waypoint, 1).unwrap()),
            there,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            acceptor: Acceptor::new(&source, mesh).unwrap(),
            _folder: folder,
        }
    }

    /// A client that wants a stream.
    fn client(&self) -> JoinHandle<Result<Carrier, ConnectError>> {
        let (pool, local, there) = (self.pool.clone(), self.local.clone(), self.there.clone());
        let next_hop = self.listener.local_addr().unwrap();
        let pod = SocketAddr::from(([10, 0, 0, 1], 80));
        tokio::spawn(async move {
            let pod = Asked::Endpoint(pod);
            pool.open(next_hop, &there, local, pod, LIMIT).await
        })
    }

    /// The connection of a dial, which waits for TLS.
    async fn dialled(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// Goes on with it: TLS, HTTP/2, and every CONNECT gets its stream. Connections that are not served
    /// get nothing: whoever depends on a second one waits in vain.
    fn serve(&self, tcp: TcpStream) {
        let acceptor = self.acceptor.clone();
        tokio::spawn(async move {
            let (tls, _) = acceptor.accept(tcp).await.unwrap();
            let mut connection = h2::server::handshake(tls).await.unwrap();
            let mut streams = Vec::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let send = respond.send_response(Response::new(()), false).unwrap();
                streams.push((request, send));
            }
        });
    }
}

async fn leave(client: JoinHandle<Result<Carrier, ConnectError>>) {
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn a_client_that_leaves_ends_no_dial_that_others_wait_for() {
    let wire = Wire::new().await;
    let first = wire.client();
    let tcp = wire.dialled().await;
    let others = [wire.client(), wire.client()];
    // They wait for the dial that goes on.
    tokio::task::yield_now().await;
    leave(first).await;
    wire.serve(tcp);
    for other in others {
        let carrier = other.await.unwrap().unwrap();
        assert!(matches!(carrier, Carrier::Tunnel { .. }));
    }
    assert_eq!(wire.pool.len(), 1);
}

#[tokio::test]
async fn a_dial_that_nobody_waits_for_is_the_pools() {
    let wire = Wire::new().await;
    let only = wire.client();
    let tcp = wire.dialled().await;
    leave(only).await;
    wire.serve(tcp);
    let later = wire.client().await.unwrap().unwrap();
    assert!(matches!(later, Carrier::Tunnel { .. }));
    assert_eq!(wire.pool.len(), 1);
}

/// The pool is not shut by a dial that came to nothing.
#[tokio::test]
async fn after_a_dial_that_fails_without_its_client_the_next_one_dials() {
    let wire = Wire::new().await;
    let first = wire.client();
    let tcp = wire.dialled().await;
    let second = wire.client();
    tokio::task::yield_now().await;
    leave(first).await;
    drop(tcp);
    let tcp = wire.dialled().await;
    wire.serve(tcp);
    assert!(second.await.unwrap().is_ok());
    assert_eq!(wire.pool.len(), 1);
}
