//! The HTTP engine of one worker, and how our streams get into it.
//!
//! Pingora lets only its own service builder make a proxy with a custom connector, and hands the
//! finished proxy out only to a callback of an accepted connection. So the service is started on a
//! socket in a folder of its own, connected to once, and the socket's name is gone before the first
//! request. Everything else of that service stays unused (specs/pingora.md section 1).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use pingora_core::apps::{HttpServerApp, HttpServerOptions};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::Service as _;
use pingora_proxy::{HttpProxy, ProcessCustomSession, ProxyServiceBuilder};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};

use super::connector::{Shared, TunnelConnector};
use super::http::Gate;
use super::http2;
use super::stream::Downstream;
use super::stream_context::StreamContext;
use crate::client_stream::ClientStream;
use crate::limits::{ATTEMPTS_PER_REQUEST_MAX, KEEPALIVE_TIMEOUT, UPSTREAM_IDLE_STREAMS_MAX};
use crate::listener::admit::Asked;
use crate::listener::protocol::Inner;
use crate::telemetry::exchange::StreamOrigin;
use crate::worker::Worker;

pub(super) type Proxy = HttpProxy<Gate, TunnelConnector>;

/// The HTTP engine of one worker.
pub struct Engine {
    proxy: Arc<Proxy>,
    connections: Arc<Shared>,
    draining: watch::Receiver<bool>,
    worker: Arc<Worker>,
}

impl Engine {
    /// Builds the engine of a worker on the worker's own runtime.
    ///
    /// # Errors
    /// When no temporary folder or socket can be made.
    pub async fn start(worker: &Arc<Worker>, connections: Arc<Shared>) -> anyhow::Result<Self> {
        let proxy = build(
            Gate::new(worker.clone(), connections.clone()),
            connections.clone(),
        )
        .await?;
        Ok(Self {
            proxy,
            connections,
            draining: worker.drain.watch(),
            worker: worker.clone(),
        })
    }

    /// Connections towards endpoints.
    pub fn connections(&self) -> &Arc<Shared> {
        &self.connections
    }

    /// Serves the requests of one stream until it ends.
    pub async fn serve(
        &self,
        stream: ClientStream,
        inner: Inner,
        origin: Arc<StreamOrigin>,
        asked: Asked,
    ) {
        let http2 = inner == Inner::Http2;
        let context = StreamContext::new(self.worker.clone(), origin, asked, http2);
        let context = Arc::new(context);
        match Downstream::new(stream, context.clone()) {
            Ok(io) if http2 => http2::serve(&self.proxy, io, &context, &self.draining).await,
            Ok(io) => self.serve_http1(io, &context).await,
            Err(error) => tracing::error!(%error, "stream could not be handed to the engine"),
        }
    }

    async fn serve_http1(&self, io: Downstream, context: &StreamContext) {
        let mut session = ServerSession::new_http1(Box::new(io));
        session.set_keepalive(Some(KEEPALIVE_TIMEOUT.as_secs()));
        session.set_pipelining_enabled(true);
        let serving = self.serve_requests(session, context);
        tokio::select! {
            () = serving => {}
            () = context.overdue() => {}
        }
    }

    async fn serve_requests(&self, session: ServerSession, context: &StreamContext) {
        let mut served = self.proxy.process_new_http(session, &self.draining).await;
        while let Some((stream, settings)) = served.map(|reused| reused.consume()) {
            context.next_request();
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            served = self.proxy.process_new_http(session, &self.draining).await;
        }
    }
}

async fn build(gate: Gate, connections: Arc<Shared>) -> anyhow::Result<Arc<Proxy>> {
    let conf = Arc::new(ServerConf {
        threads: 1,
        max_retries: ATTEMPTS_PER_REQUEST_MAX as usize,
        upstream_keepalive_pool_size: UPSTREAM_IDLE_STREAMS_MAX,
        ..ServerConf::default()
    });
    let mut client_options = ConnectorOptions::new(UPSTREAM_IDLE_STREAMS_MAX);
    client_options.keepalive_pool_size = UPSTREAM_IDLE_STREAMS_MAX;
    let mut server_options = HttpServerOptions::default();
    server_options.force_custom = true;
    // Not to be proxied, but so that the gate sees it: the engine would refuse it by itself.
    server_options.allow_connect_method_proxying = true;
    let (sender, receiver) = oneshot::channel();
    let mut service = ProxyServiceBuilder::new(&conf, gate)
        .custom(TunnelConnector::new(connections), hand_over(sender))
        .client_options(client_options)
        .server_options(server_options)
        .build();

    let folder = std::env::temp_dir().join(format!("cairn-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).with_context(|| format!("make folder {}", folder.display()))?;
    let socket = folder.join("engine");
    service.add_uds(&socket.to_string_lossy(), None);
    // The service must go on for as long as the proxy: its end would end every keep-alive.
    let (forever, shutdown) = watch::channel(false);
    tokio::spawn(async move {
        service.start_service(None, shutdown, 1).await;
        drop(forever);
    });
    let proxy = receive(&socket, receiver).await;
    let _ = std::fs::remove_dir_all(&folder);
    proxy
}

/// The callback that gets the finished proxy.
fn hand_over(sender: oneshot::Sender<Arc<Proxy>>) -> ProcessCustomSession<Gate, TunnelConnector> {
    let sender = Mutex::new(Some(sender));
    Arc::new(move |proxy, _stream, _shutdown| {
        let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // The receiver waits in `receive`; if it gave up, start-up has failed already.
            let _ = sender.send(proxy);
        }
        Box::pin(std::future::ready(None))
    })
}

async fn receive(
    socket: &std::path::Path,
    receiver: oneshot::Receiver<Arc<Proxy>>,
) -> anyhow::Result<Arc<Proxy>> {
    let connect = async {
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => return stream,
                // The service binds its socket in a task of its own.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    let limit = Duration::from_secs(10);
    let _stream = tokio::time::timeout(limit, connect)
        .await
        .context("the engine's service did not start")?;
    tokio::time::timeout(limit, receiver)
        .await
        .context("the engine's service did not answer")?
        .context("the engine's service ended at once")
}
