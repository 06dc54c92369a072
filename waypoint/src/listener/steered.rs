//! The listener inside a pod: takes the connections that the kernel redirect steers to it. Who the
//! client is follows from the listener, where it wanted to go from the address it arrived at
//! (specs/kernel-redirect.md 1). What is done with it is the same as with a stream of a tunnel.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::AppProtocol;
use cairn_kernel_redirect::slot_of;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::accept::tune;
use super::admit::{Asked, Refusal};
use super::admitted::Admitted;
use crate::client_stream::{ClientStream, SteeredStream};
use crate::drain::Kind;
use crate::limits::STEERED_CONNECTIONS_PER_POD_MAX;
use crate::log::Seldom;
use crate::node::{Pod, Slots};
use crate::proxy::tcp;
use crate::telemetry::counters;
use crate::telemetry::exchange::{Peer, StreamOrigin};
use crate::worker::Worker;

/// A pod's listener, on its way to the worker that serves it.
pub struct PodListener {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The socket in the pod's network namespace.
    pub socket: std::net::TcpListener,
    /// What the slots stand for.
    pub slots: Arc<ArcSwap<Slots>>,
    /// Ends the listening when its other half is dropped.
    pub until: oneshot::Receiver<()>,
}

/// Serves the listeners that are handed over, each until it is withdrawn.
pub async fn take(mut listeners: mpsc::Receiver<PodListener>, worker: Arc<Worker>) {
    while let Some(listener) = listeners.recv().await {
        tokio::spawn(run(listener, worker.clone()));
    }
    // The agent is gone; the worker goes on serving tunnels.
    std::future::pending().await
}

async fn run(listener: PodListener, worker: Arc<Worker>) {
    let PodListener {
        pod,
        socket,
        slots,
        mut until,
    } = listener;
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            return tracing::error!(pod = %pod.key, %error, "the pod's listener can not be used");
        }
    };
    let room = Arc::new(Semaphore::new(STEERED_CONNECTIONS_PER_POD_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = &mut until => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come back instead of spinning.
                static LINE: Seldom = Seldom::new();
                if let Some(kept_back) = LINE.due() {
                    tracing::warn!(pod = %pod.key, %error, kept_back, "accept failed");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            worker.refused(Refusal::ConnectionLimit);
            reset(&stream);
            continue;
        };
        let connection = Connection {
            stream,
            permit,
            port: address.port(),
            pod: pod.clone(),
            slots: slots.clone(),
            worker: worker.clone(),
        };
        tokio::spawn(connection.serve());
    }
}

/// One steered connection.
struct Connection {
    stream: TcpStream,
    /// One of the pod's, held for as long as the socket is open.
    permit: OwnedSemaphorePermit,
    /// The client's port.
    port: u16,
    pod: Arc<Pod>,
    slots: Arc<ArcSwap<Slots>>,
    worker: Arc<Worker>,
}

impl Connection {
    async fn serve(self) {
        if let Err(error) = tune(&self.stream) {
            tracing::debug!(%error, "socket options refused");
        }
        let _counted = counters::STREAMS.track();
        let _held = self.worker.in_flight.hold(Kind::Stream);
        match self.admit() {
            Ok(admitted) => self.pass_on(admitted).await,
            Err(refusal) => {
                self.worker.refused(refusal);
                if let Some(kept_back) = refusal.line().due() {
                    tracing::info!(pod = %self.pod.key, local = ?self.stream.local_addr().ok(),
                        reason = refusal.as_str(), kept_back, "steered connection refused");
                }
                reset(&self.stream);
            }
        }
    }

    fn admit(&self) -> Result<Admitted, Refusal> {
        let local = self.stream.local_addr().map_err(|_| Refusal::NoSlot)?;
        // Dialled by hand, or a service that has left since: never a guess.
        let dialled = slot_of(canonical(local)).and_then(|slot| self.slots.load().address(slot));
        let asked = Asked::Address(dialled.ok_or(Refusal::NoSlot)?);
        let runtime = self.worker.runtime.load();
        let target = runtime.find(&asked)?;
        let trust_domain = &runtime.snapshot.mesh.trust_domain;
        let identity = self.pod.identity(trust_domain).map_err(|error| {
            tracing::error!(pod = %self.pod.key, %error, "the pod has no identity");
            Refusal::NoGateway
        })?;
        let address = self.pod.address_towards(target.destination, self.port);
        let address = address.unwrap_or_else(|| {
            let none = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            SocketAddr::new(none, self.port)
        });
        let origin = Arc::new(StreamOrigin {
            peer: Arc::new(Peer { identity, address }),
            tunnel_authority: "".into(),
            baggage: None,
            destination: target.destination,
            pod: Some(self.pod.clone()),
        });
        Ok(Admitted {
            origin,
            asked,
            target,
        })
    }

    async fn pass_on(self, admitted: Admitted) {
        let worker = self.worker;
        let stream = ClientStream::Steered(SteeredStream::new(self.stream, Some(self.permit)));
        if admitted.target.protocol != AppProtocol::Tcp {
            return admitted.serve(stream, worker).await;
        }
        tcp::serve_accepted(stream, &admitted.origin, &admitted.asked, &worker).await;
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A reset: the client must not take silence for an empty answer. Fails only on a dead socket.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
