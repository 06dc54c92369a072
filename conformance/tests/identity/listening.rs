//! Takes connections with TLS until it is stopped. Knows nothing of what is spoken in them.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A listener, which can be started again after it was stopped; gone when dropped.
#[derive(Default)]
pub struct Listening(Option<JoinHandle<()>>);

impl Listening {
    /// Takes connections from now on. `acceptor`: the certificate that the next one is shown.
    pub async fn start<F>(
        &mut self,
        address: SocketAddr,
        acceptor: impl Fn() -> TlsAcceptor + Send + 'static,
        serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("an address");
        self.0 = Some(tokio::spawn(async move {
            // Dropped with the task: its connections end.
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, serve) = (acceptor(), serve.clone());
                connections.spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        serve(tls).await;
                    }
                });
            }
        }));
    }

    /// Ends all connections, and takes no more.
    pub async fn stop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
