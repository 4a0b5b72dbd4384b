//! Connections: taken up to a number, told to finish at a shutdown.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{config, metrics::Metrics};

/// A client must have sent its request's head by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves connections until `stop`, and then until each has answered what it was asked, or the time for that is over.
pub async fn serve(
    listeners: Vec<TcpListener>,
    router: Router,
    settings: config::Http,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let graceful = Arc::new(GracefulShutdown::new());
    let places = Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS)));
    let (mut accepting, connections) = (tokio::task::JoinSet::new(), TaskTracker::new());
    for listener in listeners {
        let (router, counted, stop) = (router.clone(), Arc::clone(&metrics), stop.clone());
        let accept = Accept {
            listener,
            router,
            metrics: counted,
            graceful: Arc::clone(&graceful),
            places: Arc::clone(&places),
            connections: connections.clone(),
        };
        // Dropping the future between connections closes the listener.
        accepting.spawn(async move { stop.run_until_cancelled_owned(accept.run()).await });
    }
    accepting.join_all().await;
    let Some(graceful) = Arc::into_inner(graceful) else { return };
    connections.close();
    let ended = async {
        graceful.shutdown().await;
        connections.wait().await;
    };
    if tokio::time::timeout(settings.shutdown, ended).await.is_err() {
        tracing::warn!("some requests were not answered before the shutdown");
    }
}

/// Takes the connections of one listener.
struct Accept {
    listener: TcpListener,
    router: Router,
    metrics: Arc<Metrics>,
    graceful: Arc<GracefulShutdown>,
    places: Arc<Semaphore>,
    connections: TaskTracker,
}

impl Accept {
    async fn run(self) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let connection = connection(stream, Peer(peer), self.router.clone(), &self.graceful);
                    let metrics = Arc::clone(&self.metrics);
                    self.connections.spawn(async move {
                        metrics.http_connections.inc();
                        connection.await;
                        metrics.http_connections.dec();
                        drop(place);
                    });
                }
                Err(error) => {
                    // Most likely too many open files: the next connection may find one closed.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + 'static {
    // Answers are small and awaited.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let service = TowerToHyperService::new(router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request
    }));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT);
    let watcher = graceful.watcher();
    async move {
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection broke off");
        }
    }
}
