//! The bare loop, and an application that does nothing. Each is a process of its own.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use redis::Script;
use tokio::net::TcpListener;

use crate::worker::CONCURRENCY;

/// Acknowledged at once.
const BATCH: usize = 32;

/// Answers 200 to each POST. A GET returns the number of POSTs, and the milliseconds between the
/// first and the last.
pub(crate) async fn sink(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let (count, last, started) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Instant::now());
    let first = Arc::new(AtomicU64::new(u64::MAX));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (count, last, first) = (count.clone(), last.clone(), first.clone());
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let (count, last, first) = (count.clone(), last.clone(), first.clone());
                async move {
                    let now = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let body = if request.method() == Method::GET {
                        let took = last
                            .load(Ordering::SeqCst)
                            .saturating_sub(first.load(Ordering::SeqCst));
                        format!("{} {took}", count.load(Ordering::SeqCst))
                    } else {
                        let _ = request.into_body().collect().await;
                        first.fetch_min(now, Ordering::SeqCst);
                        last.fetch_max(now, Ordering::SeqCst);
                        count.fetch_add(1, Ordering::SeqCst);
                        String::new()
                    };
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
                }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Consume → script → POST → script → acknowledge many at once.
pub(crate) async fn bare(rabbit: &str, redis: &str, queue: &str, url: &str) -> anyhow::Result<()> {
    let connection = Connection::connect(rabbit, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let prefetch = u16::try_from(CONCURRENCY + BATCH)?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    let store = redis::Client::open(redis)?.get_multiplexed_async_connection().await?;
    let http: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let claim = Script::new("return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', 86400000)");
    let settle = Script::new("return redis.call('SET', KEYS[1], ARGV[1], 'PX', 86400000)");
    let (claim, settle) = (&claim, &settle);
    let (mut running, mut done) = (FuturesUnordered::new(), BTreeSet::new());
    let mut acknowledged = 0;
    loop {
        tokio::select! {
            delivery = consumer.next(), if running.len() < CONCURRENCY => {
                let delivery = delivery.context("the queue is gone")??;
                let (mut store, http) = (store.clone(), http.clone());
                running.push(async move {
                    let tag = delivery.delivery_tag;
                    let key = format!("bare:{queue}:{}:{tag}", std::process::id());
                    claim.key(&key).arg("claimed").invoke_async::<redis::Value>(&mut store).await?;
                    let request = Request::post(url).body(Full::new(Bytes::from(delivery.data)))?;
                    http.request(request).await?.into_body().collect().await?;
                    settle.key(&key).arg("done").invoke_async::<redis::Value>(&mut store).await?;
                    anyhow::Ok(tag)
                });
            }
            Some(tag) = running.next() => {
                done.insert(tag?);
                let run = (acknowledged + 1..).take_while(|tag| done.contains(tag)).count();
                if run >= BATCH || (running.is_empty() && run > 0) {
                    acknowledged += run as u64;
                    done = done.split_off(&(acknowledged + 1));
                    channel.basic_ack(acknowledged, BasicAckOptions { multiple: true }).await?;
                }
            }
        }
    }
}
