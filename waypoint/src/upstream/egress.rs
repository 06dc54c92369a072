//! Sockets of a pod's network namespace: plain connections for a pod's requests leave from the pod's
//! own address, under the pod's own network policy. Enters namespaces; connects to nothing by itself.
//!
//! A socket belongs to the namespace of the thread that makes it and stays there. One thread for each
//! pod entered the namespace once and does nothing but make sockets; workers connect them.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::limits::EGRESS_SOCKETS_WAITING_MAX;

/// Enough for a thread that calls socket().
const STACK_BYTES: usize = 64 * 1024;

/// The way out of one pod. Equal to itself and its clones only: two pods never share a connection,
/// not even two that have had one name.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

struct Inner {
    number: u64,
    closed: AtomicBool,
    /// Where sockets are made; `None`: in this process's own namespace.
    orders: Option<mpsc::SyncSender<Order>>,
}

enum Order {
    Socket(Domain, oneshot::Sender<io::Result<Socket>>),
    Leave,
}

impl Egress {
    /// Enters a network namespace with a thread of its own.
    ///
    /// # Errors
    /// When the namespace can not be entered or no thread be started.
    pub fn enter(netns: &File) -> io::Result<Self> {
        let netns = netns.try_clone()?;
        let (orders, taken) = mpsc::sync_channel(EGRESS_SOCKETS_WAITING_MAX);
        let (ready, entered) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("pod-sockets".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let inside = setns(&netns, CloneFlags::CLONE_NEWNET);
                let failed = inside.is_err();
                // The other end waits below.
                let _ = ready.send(inside.map_err(io::Error::from));
                drop(netns);
                if !failed {
                    make_sockets(&taken);
                }
            })?;
        entered.recv().map_err(|_| io::ErrorKind::BrokenPipe)??;
        Ok(Self::by(Some(orders)))
    }

    /// For a pod whose namespace can not be entered: its connections leave from the host's address.
    pub fn from_host() -> Self {
        Self::by(None)
    }

    fn by(orders: Option<mpsc::SyncSender<Order>>) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        Self(Arc::new(Inner {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            closed: AtomicBool::new(false),
            orders,
        }))
    }

    /// The way out of no pod: makes no sockets.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        let (orders, _) = mpsc::sync_channel(1);
        Self(Arc::new(Inner {
            number: 0,
            closed: AtomicBool::new(false),
            orders: Some(orders),
        }))
    }

    /// A connection from inside the pod's namespace.
    ///
    /// # Errors
    /// Those of connect(2), and `NotConnected` when the pod has left.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the pod has left this node");
        if !self.is_open() {
            return Err(gone());
        }
        let Some(orders) = &self.0.orders else {
            return TcpStream::connect(address).await;
        };
        let (sender, made) = oneshot::channel();
        let order = Order::Socket(Domain::for_address(address), sender);
        let busy = |_| io::Error::new(io::ErrorKind::WouldBlock, "too many connections at once");
        orders.try_send(order).map_err(busy)?;
        let socket = made.await.map_err(|_| gone())??;
        TcpSocket::from_std_stream(socket.into())
            .connect(address)
            .await
    }

    /// Whether the pod is still there.
    pub fn is_open(&self) -> bool {
        !self.0.closed.load(Ordering::Acquire)
    }

    /// The pod has left: no new connections, and nothing keeps its namespace alive.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        // If the queue is full the thread ends with the last clone instead.
        if let Some(orders) = &self.0.orders {
            let _ = orders.try_send(Order::Leave);
        }
    }
}

fn make_sockets(orders: &mpsc::Receiver<Order>) {
    while let Ok(Order::Socket(domain, sender)) = orders.recv() {
        let made = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        // Whoever asked may have given up.
        let _ = sender.send(made);
    }
}

impl PartialEq for Egress {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for Egress {}

impl Hash for Egress {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.number.hash(state);
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Egress({})", self.0.number)
    }
}
