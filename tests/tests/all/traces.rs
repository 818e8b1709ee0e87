//! OpenTelemetry: one trace from a callback to its last attempt, as a collector receives it. A collector that does not
//! answer costs nothing.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span as Exported;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use zentra_tests::http::serve;
use zentra_tests::ledger::{Ledger, Turn, transfer};
use zentra_tests::services::{self, folder};
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, World, dead, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::api::Api;
use crate::pull::{Bench, Consumer, On};

/// A span that a collector received.
#[derive(Clone, Debug)]
struct Span {
    service: String,
    span: Exported,
}

impl Span {
    fn id(&self) -> String {
        hex::encode(&self.span.span_id)
    }

    fn trace(&self) -> String {
        hex::encode(&self.span.trace_id)
    }

    fn attributes(&self) -> BTreeMap<String, String> {
        let text = |value: Any| match value {
            Any::StringValue(text) => text,
            Any::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        let all = self.span.attributes.iter().cloned();
        all.map(|one| (one.key, text(one.value.unwrap().value.unwrap()))).collect()
    }

    fn is(&self, key: &str, value: &str) -> bool {
        self.attributes().get(key).is_some_and(|is| is == value)
    }
}

/// A collector of spans.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn open() -> Self {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let all = spans.clone();
        let answer = move |request: http::Request<hyper::body::Incoming>| {
            let all = all.clone();
            async move {
                let (head, body) = request.into_parts();
                let is = |name: &str| head.headers.get(name).map(|it| it.to_str().unwrap());
                assert_eq!(head.uri.path(), "/v1/traces");
                assert_eq!(is("content-type"), Some("application/x-protobuf"));
                assert_eq!(is("x-tenant"), Some("shop"));
                let mut body = body.collect().await.unwrap().to_bytes().to_vec();
                if is("content-encoding") == Some("gzip") {
                    let packed = std::mem::take(&mut body);
                    GzDecoder::new(&packed[..]).read_to_end(&mut body).unwrap();
                }
                all.lock().unwrap().extend(received(&body));
                http::Response::default()
            }
        };
        let url = serve(answer).await.unwrap();
        Self { url, spans }
    }

    /// Programs of this stack send their spans to it.
    fn collects(&self, stack: &mut Stack) {
        sends_to(&self.url, stack);
        stack.variables.push(("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop".into()));
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// All spans, once this number of them is like this.
    async fn until(&self, what: &str, count: usize, is: impl Fn(&Span) -> bool) -> Vec<Span> {
        eventually(what, BOUND, async || {
            let all = self.spans();
            (all.iter().filter(|span| is(span)).count() >= count).then_some(all)
        })
        .await
    }
}

fn received(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let name = attributes.iter().find(|one| one.key == "service.name").unwrap();
        let Some(Any::StringValue(service)) = &name.value.as_ref().unwrap().value else { panic!() };
        let all = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(all.map(|span| Span { service: service.clone(), span }));
    }
    spans
}

fn sends_to(url: &str, stack: &mut Stack) {
    stack.variables.extend([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
    ]);
}

/// The spans below a span, in the order in which they began.
fn below<'s>(all: &'s [Span], parent: &Span) -> Vec<&'s Span> {
    let is_below = |one: &&Span| one.span.parent_span_id == parent.span.span_id;
    let mut children: Vec<&Span> = all.iter().filter(is_below).collect();
    children.sort_by_key(|one| one.span.start_time_unix_nano);
    children
}

fn names<'s>(spans: &[&'s Span]) -> Vec<&'s str> {
    spans.iter().map(|one| one.span.name.as_str()).collect()
}

fn with_outcome(outcome: &'static str) -> impl Fn(&Span) -> bool {
    move |span| span.span.name == "settle" && span.is("zentra.outcome", outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_has_each_step_under_its_parent_over_retries_and_a_requeue() {
    let (rabbit, redis, collector) = (shared_rabbit(), shared_redis(), Collector::open().await);
    let retry = "attempts = 2, initial = \"100ms\"";
    let mut world = World::start(&rabbit, &redis, &namespace(), retry).await.unwrap();
    collector.collects(&mut world.stack);
    world.ingress = world.stack.ingress().await;
    world.stack.variables.push(("ZENTRA_LOG_FORMAT", "json".into()));
    let worker = world.stack.worker().await;
    world.ledger.take_turns([500, 503].map(|status| Turn::Answer(status, Vec::new())));
    world.send("evt_1", &transfer("evt_1", "trf_8172", 1)).await;
    world.until("evt_1", dead).await;
    let requeued = world.stack.zentra(&["dead", "requeue", "evt_1"]);
    assert!(requeued.status.success(), "{requeued:?}");
    world.until("evt_1", delivered).await;
    let all = collector.until("it is settled", 1, with_outcome("delivered")).await;
    let all = match all.iter().filter(|one| one.span.name.starts_with("process")).count() {
        3 => all,
        _ => collector.until("all", 3, |one| one.span.name.starts_with("process")).await,
    };

    assert!(all.iter().all(|one| one.trace() == all[0].trace()), "{all:?}");
    let roots: Vec<&Span> = all.iter().filter(|one| one.span.parent_span_id.is_empty()).collect();
    let [receive] = roots[..] else { panic!("{roots:?}") };
    assert_eq!(
        (&*receive.span.name, receive.span.kind(), &*receive.service),
        ("POST /in/{source}", SpanKind::Server, "zentra-ingress")
    );
    assert!(receive.is("http.response.status_code", "200") && receive.is("zentra.source", "acme"));
    let [verify, publish] = below(&all, receive)[..] else { panic!("{all:?}") };
    assert_eq!(names(&[verify, publish]), ["verify", "publish events"]);
    assert_eq!(publish.span.kind(), SpanKind::Producer);
    assert!(publish.is("messaging.system", "rabbitmq"), "{publish:?}");

    let attempts = below(&all, publish);
    assert_eq!(names(&attempts), ["process ledger"; 3]);
    let seen = world.ledger.seen();
    let expected = [
        (("1", "0"), vec!["claim", "POST", "publish retry", "settle"], "500"),
        (("2", "0"), vec!["claim", "POST", "publish dead", "settle"], "503"),
        (("1", "1"), vec!["claim", "POST", "settle"], "200"),
    ];
    for (at, ((attempt, generation), steps, status)) in expected.into_iter().enumerate() {
        let process = attempts[at];
        assert_eq!((process.span.kind(), &*process.service), (SpanKind::Consumer, "zentra-worker"));
        assert!(process.is("zentra.attempt", attempt), "{process:?}");
        assert!(process.is("zentra.generation", generation), "{process:?}");
        let children = below(&all, process);
        assert_eq!(names(&children), steps);
        let request = children[1];
        assert_eq!(request.span.kind(), SpanKind::Client);
        assert!(request.is("http.response.status_code", status), "{request:?}");
        let has_failed = request.span.status.as_ref().is_some_and(|status| status.code == 2);
        assert_eq!(has_failed, status != "200", "{request:?}");
        let parent = format!("00-{}-{}-01", receive.trace(), request.id());
        assert_eq!(seen[at].header("traceparent"), parent, "the application goes on from here");
    }

    let shown = world.stack.shown("evt_1").unwrap();
    assert_eq!(shown["event"]["trace"], receive.trace(), "{shown}");
    let log = services::output();
    let line =
        log.lines().find(|line| line.contains(&receive.trace()) && line.contains("dead-lettered"));
    let line: serde_json::Value =
        serde_json::from_str(line.unwrap_or_else(|| panic!("{log}"))).unwrap();
    assert_eq!(line["trace_id"], receive.trace());
    assert_eq!(line["span_id"], attempts[1].id(), "{line}");
    let exported = worker.metric(&world.stack.http, &["zentra_spans_exported_total"]).await;
    assert!(exported >= 12.0, "{exported}");
    no_payload(&all);
}

/// Spans hold no payload, header or secret.
fn no_payload(all: &[Span]) {
    for span in all {
        let text = format!("{:?} {:?}", span.span.name, span.attributes());
        for hidden in ["trf_8172", "whsec", "webhook-signature", sign::ACME_SECRET] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_callback_is_a_trace_with_its_reason() {
    let collector = Collector::open().await;
    let (ledger, mut stack) = on_file().await;
    collector.collects(&mut stack);
    stack.variables.push(("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".into()));
    stack.variables.push(("OTEL_SERVICE_NAME", "callbacks".into()));
    let program = stack.standalone().await;
    let headers = sign::acme("evt_forged", sign::now(), b"another body");
    let answer = stack.http.post(&format!("{}/in/acme", program.listen), &headers, "{}").await;
    assert_eq!(answer.unwrap().status, 401);
    let all = collector.until("it is there", 2, |_| true).await;
    for name in ["POST /in/{source}", "verify"] {
        let span = all.iter().find(|one| one.span.name == name).unwrap();
        assert!(span.is("zentra.reason", "signature_mismatch"), "{span:?}");
        assert_eq!(span.service, "callbacks");
    }
    assert!(ledger.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_is_not_sampled_is_exported_by_nobody() {
    let collector = Collector::open().await;
    let (ledger, mut stack) = on_file().await;
    collector.collects(&mut stack);
    stack.variables.push(("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".into()));
    stack.variables.push(("OTEL_TRACES_SAMPLER_ARG", "0".into()));
    let mut program = stack.standalone().await;
    send(&stack, &program.listen, "evt_1").await;
    stack.until("evt_1", "delivered", BOUND).await;
    let seen = ledger.seen();
    assert!(seen[0].header("traceparent").ends_with("-00"), "{:?}", seen[0].header("traceparent"));
    // The last spans are exported when a program ends.
    assert!(program.process.terminate(BOUND).is_some());
    assert!(collector.spans().is_empty(), "{:?}", collector.spans());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_of_a_program_are_exported() {
    let collector = Collector::open().await;
    let (_ledger, mut stack) = on_file().await;
    collector.collects(&mut stack);
    stack.variables.push(("OTEL_BSP_SCHEDULE_DELAY", "3600000".into()));
    let mut program = stack.standalone().await;
    send(&stack, &program.listen, "evt_1").await;
    stack.until("evt_1", "delivered", BOUND).await;
    assert!(collector.spans().is_empty());
    assert!(program.process.terminate(BOUND).is_some_and(|status| status.success()));
    assert!(collector.spans().iter().any(with_outcome("delivered")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_delays_nothing() {
    // It accepts connections, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (ledger, mut stack) = on_file().await;
    sends_to(&url, &mut stack);
    stack.variables.push(("OTEL_BSP_MAX_QUEUE_SIZE", "16".into()));
    stack.variables.push(("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8".into()));
    stack.variables.push(("OTEL_EXPORTER_OTLP_TIMEOUT", "200".into()));
    let mut program = stack.standalone().await;
    for at in 0..200 {
        send(&stack, &program.listen, &format!("evt_{at}")).await;
    }
    eventually("all are delivered", BOUND, async || (ledger.seen().len() == 200).then_some(()))
        .await;
    let spans = program.metric(&stack.http, &["zentra_spans_total"]).await;
    let exported = program.metric(&stack.http, &["zentra_spans_exported_total"]).await;
    assert!(spans >= 1000.0 && exported == 0.0, "{spans} {exported}");
    eventually("it is logged", BOUND, async || {
        services::output().contains("the collector accepts no spans").then_some(())
    })
    .await;
    assert!(program.process.terminate(BOUND).is_some_and(|status| status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_used_are_logged_and_stop_nothing() {
    let (_ledger, mut stack) = on_file().await;
    sends_to("http://127.0.0.1:9", &mut stack);
    stack.variables.push(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".into()));
    let program = stack.standalone().await;
    send(&stack, &program.listen, "evt_1").await;
    stack.until("evt_1", "delivered", BOUND).await;
    assert!(services::output().contains("the protocol grpc is not supported"));
    assert_eq!(program.metric(&stack.http, &["zentra_spans_total"]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_a_consumer_is_an_attempt_of_the_trace() {
    let collector = Collector::open().await;
    let mut bench = Bench::start(On::Servers, "30s").await;
    collector.collects(&mut bench.stack);
    bench.ingress = bench.stack.ingress().await;
    let api = Api::start(&bench.stack).await;
    let consumer = Consumer::new(&api, "app");
    bench.send("evt_1").await;
    let refused = consumer.one().await;
    let nack = json!({ "receipts": [refused["receipt"]], "error": "card 4242 is declined" });
    assert_eq!(consumer.ask("/nack", nack).await.0, 200);
    let event = consumer.one().await;
    consumer.is_acknowledged(&event).await;
    let is_process = |one: &Span| one.span.name == "process ledger";
    let all = collector.until("it is settled", 2, is_process).await;
    // What a consumer says may quote the event.
    assert!(!format!("{all:?}").contains("4242"));
    let is_second = |one: &&Span| is_process(one) && one.is("zentra.attempt", "2");
    let process = all.iter().find(is_second).unwrap();
    assert_eq!(process.service, "zentra");
    let children = below(&all, process);
    assert_eq!(names(&children), ["claim", "attempt", "settle"]);
    let parent = format!("00-{}-{}-01", process.trace(), children[1].id());
    let headers = event["headers"].as_array().unwrap();
    let sent = headers.iter().find(|pair| pair[0] == "traceparent").unwrap();
    assert_eq!(sent[1], parent);
    let publish = all.iter().find(|one| one.span.name == "publish events").unwrap();
    assert_eq!(process.span.parent_span_id, publish.span.span_id);
}

async fn on_file() -> (Ledger, Stack) {
    let ledger = Ledger::start(&folder("ledger")).await.unwrap();
    let stack = Stack::new("", "", &namespace(), &ledger.url, "");
    stack.embed();
    (ledger, stack)
}

async fn send(stack: &Stack, listen: &str, id: &str) {
    let body = transfer(id, &format!("trf_{id}"), 1);
    let headers = sign::acme(id, sign::now(), body.as_bytes());
    let answer = stack.http.post(&format!("{listen}/in/acme"), &headers, body).await;
    assert!(answer.as_ref().is_some_and(|answer| answer.status.is_success()), "{answer:?}");
}
