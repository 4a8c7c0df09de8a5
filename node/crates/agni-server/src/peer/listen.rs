//! The peer port: other nodes connect, prove who they are, and are served.

use super::service::{Caller, Service};
use crate::dial::Wire;
use crate::limits;
use crate::log::{self, Level};
use crate::peer_services::peer_service_server::PeerServiceServer;
use crate::tcp;
use crate::tls::{Port, Tls};
use socket2::SockRef;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// A connection of another node. It ends with the certificate that it was made with.
struct Accepted {
    stream: Box<dyn Wire>,
    caller: Caller,
    expires: Option<Pin<Box<Sleep>>>,
}

impl Connected for Accepted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(expires) = &mut self.expires
            && expires.as_mut().poll(context).is_ready()
        {
            let message = "the other node's certificate has expired";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Serves other nodes until the end.
pub async fn serve(
    listener: std::net::TcpListener,
    service: Service,
    mut stopping: watch::Receiver<bool>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        log::write(Level::Error, "the peer port can't be listened on", &[]);
        return;
    };
    let tls = service.face.tls.clone();
    let service =
        PeerServiceServer::new(service).max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
    let (greeted, connections) = channel(limits::PEER_GREETINGS_MAX);
    let accepting = tokio::spawn(accept(listener, tls, greeted));
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_millis(limits::PEER_PING_INTERVAL_MS)))
        .http2_keepalive_timeout(Some(Duration::from_millis(limits::PEER_PING_TIMEOUT_MS)))
        .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::PEER_CONNECTION_WINDOW_BYTES)
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(connections));
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                let fields = [("error", error.to_string().into())];
                log::write(Level::Error, "the peer port is no longer served", &fields);
            }
        }
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    accepting.abort();
}

async fn accept(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    greeted: Sender<io::Result<Accepted>>,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::write(Level::Warn, "accept failed", &[("error", error.to_string().into())]);
                tokio::time::sleep(Duration::from_millis(limits::PEER_BACKOFF_MS_MIN)).await;
                continue;
            }
        };
        // What can't be set makes it slower, no more.
        let _ = stream.set_nodelay(true);
        tcp::retry_soon(&SockRef::from(&stream));
        let (tls, greeted) = (tls.clone(), greeted.clone());
        tokio::spawn(async move {
            if let Some(accepted) = greet(stream, tls).await {
                let _ = greeted.send(Ok(accepted)).await;
            }
        });
    }
}

/// The handshake; what was refused has been counted and logged.
async fn greet(stream: TcpStream, tls: Option<Arc<Tls>>) -> Option<Accepted> {
    let Some(tls) = tls else {
        return Some(Accepted { stream: Box::new(stream), caller: Caller(None), expires: None });
    };
    let limit = Duration::from_millis(limits::PEER_CONNECT_MS_MAX);
    let secured = tls.accept(stream, Port::Peer, limit).await.ok()?;
    let expires = Instant::now().checked_add(secured.valid_for);
    Some(Accepted {
        stream: Box::new(secured.stream),
        caller: Caller(Some(secured.identity)),
        expires: expires.map(|at| Box::pin(sleep_until(at))),
    })
}
